"""``furiosa-llm plugins lock``: write or check the versions and digests of third-party plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from fllm.errors import ConfigError
from fllm_api.cli.loaded_plugins import plugin_config
from fllm_api.cli.options import CONTEXT_SETTINGS, PLUGIN_COMMAND_OPTIONS
from fllm_api.cli.plugin_lock.lock_check import check_lock
from fllm_api.cli.plugin_lock.lock_file import create_lock, read_lock, third_party

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("lock", params=[*PLUGIN_COMMAND_OPTIONS], context_settings=CONTEXT_SETTINGS)
@click.option("--output", type=FILE, help="File to write.  [default: print it]", show_default=False)
@click.option("--check", type=FILE, help="Compare the plugins with this file, and write nothing.")
@click.pass_context
def lock(ctx: click.RichContext, /, output: Path | None, check: Path | None, **_: Any) -> None:
    """Write the versions and SHA-256 digests of all third-party plugins. None is imported.

    Start the server with --locked-plugins FILE.
    """
    config = plugin_config(ctx)
    if check is not None:
        if output is not None:
            raise click.UsageError("--output and --check exclude each other")
        check_lock(check, config, "--check")
        lock = read_lock(check, "--check")
        click.echo(_summary(len(lock.distributions), len(lock.files)) + " as in the lock")
        return
    made = create_lock(third_party(config))
    text = msgspec.json.format(msgspec.json.encode(made)).decode() + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output {str(output)!r} can't be written: {error.strerror}") from error
    click.echo(f"{_summary(len(made.distributions), len(made.files))} locked in {output}")


def _summary(distributions: int, files: int) -> str:
    parts = [f"{distributions} distribution{'s' * (distributions != 1)}"]
    parts += [f"{files} file{'s' * (files != 1)}"] if files else []
    return " and ".join(parts)
