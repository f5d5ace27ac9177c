"""``furiosa-llm plugins check``: run the contract tests of `fllm.testing` on a plugin."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from textwrap import indent
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from fllm.errors import ModelError
from fllm.extras import require_extra
from fllm.model.source import locate
from fllm_api.cli.loaded_plugins import plugin_config, plugins_of
from fllm_api.cli.options import CONTEXT_SETTINGS, PLUGIN_COMMAND_OPTIONS
from fllm_api.cli.param_types import KeyValue
from fllm_api.cli.plugins.json_option import JSON
from fllm_api.cli.plugins.targets import resolve_targets

if TYPE_CHECKING:
    from fllm_api.cli.plugins.results import PartResult

COLORS = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


@click.command("check", params=[JSON, *PLUGIN_COMMAND_OPTIONS], context_settings=CONTEXT_SETTINGS)
@click.argument("path_or_name")
@click.option("--model", help="Model to start backends with; for chat templates, its directory.")
@click.option(
    "--max-model-len",
    type=click.IntRange(min=32),
    default=512,
    show_default=True,
    help="Context length of a backend under test.",
)
@click.option("--backend-option", type=KeyValue(), multiple=True, help="Option of the backend.")
@click.option("--placement-option", type=KeyValue(), multiple=True, help="Option of the placement.")
@click.pass_context
def check(ctx: click.RichContext, /, path_or_name: str, as_json: bool, **options: Any) -> None:
    """Run the contract tests on a .py file, a project directory, or an installed plugin.

    The exit status is 1 if a check fails. The backend of a device is started with the embedded model, and
    other backends only with --model.
    """
    checks = _run_checks(ctx, path_or_name, options)
    if as_json:
        with contextlib.redirect_stdout(sys.stderr):  # keeps output of third-party code out of the JSON
            results = list(checks)
    else:
        results = list(_print_each(checks))
    failed = any(each.outcome == "failed" for each in results)
    if as_json:
        report = {"passed": not failed, "verdicts": results}
        click.echo(msgspec.json.format(msgspec.json.encode(report)))
    ctx.exit(1 if failed else 0)


def _run_checks(ctx: click.Context, path_or_name: str, options: dict[str, Any]) -> Iterator[PartResult]:
    require_extra("testing", "`plugins check` requires hypothesis")
    targets = resolve_targets(path_or_name, plugins_of(ctx))
    model = options["model"] and locate(options["model"]).location

    from hypothesis import settings

    from fllm_api.cli.plugins.contracts import CheckOptions, check_plugin

    settings.register_profile("check", database=None, derandomize=True)
    settings.load_profile("check")
    check_options = CheckOptions(
        model=model,
        default_model=_embedded_model(),
        max_model_len=options["max_model_len"],
        options=dict(options["backend_option"]),
        placement_options=dict(options["placement_option"]),
        plugin_options=plugin_config(ctx).options,
    )
    for target in targets:
        yield from check_plugin(target, check_options)


def _embedded_model() -> str | None:
    try:
        return locate().location
    except ModelError:  # it is not installed
        return None


def _print_each(results: Iterable[PartResult]) -> Iterator[PartResult]:
    """Yield the results, and print each one as it arrives."""
    from rich.console import Console
    from rich.markup import escape
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    heading, counts = "", dict.fromkeys(COLORS, 0)
    for each in results:
        title = f"{each.plugin}  {each.part}".rstrip()
        if title != heading:
            heading = title
            console.print(f"[bold]{escape(heading)}[/bold]")
        counts[each.outcome] += 1
        color = COLORS[each.outcome]
        console.print(f"  [{color}]{each.outcome}[/{color}]  {escape(each.check)}")
        if each.reason:
            console.print(Text(indent(each.reason, " " * 10)))
        yield each
    console.print(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count))
