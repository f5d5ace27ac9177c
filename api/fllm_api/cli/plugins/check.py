"""``furiosa-llm plugins check``: the contracts of `fllm.testing`, run on a plugin as it is."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from textwrap import indent
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from fllm.errors import ConfigError
from fllm.model.source import locate
from fllm_api.build_info import DISTRIBUTION
from fllm_api.cli.options import CONTEXT_SETTINGS, PLUGIN_OPTIONS
from fllm_api.cli.param_types import KeyValue, plugins_of
from fllm_api.cli.plugins.group import JSON
from fllm_api.cli.plugins.targets import targets

if TYPE_CHECKING:
    from fllm_api.cli.plugins.results import PartResult

COLORS = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


@click.command("check", params=[JSON, *PLUGIN_OPTIONS], context_settings=CONTEXT_SETTINGS)
@click.argument("path_or_name")
@click.option("--model", help="MODEL to start backends on, and the directory to ask for templates.")
@click.option(
    "--max-model-len",
    type=click.IntRange(min=32),
    default=512,
    show_default=True,
    help="Context of a backend under test.",
)
@click.option("--backend-option", type=KeyValue(), multiple=True, help="An option of the backend's own.")
@click.pass_context
def check(ctx: click.RichContext, /, path_or_name: str, as_json: bool, **options: Any) -> None:
    """Hold a plugin to its contracts: a .py file, a project's directory, or anything installed, by its name.

    Exits with 1 where one is broken. A backend is started only where there is a --model.
    """
    found = _verdicts(ctx, path_or_name, options)
    if as_json:
        with contextlib.redirect_stdout(sys.stderr):  # what a stranger's code prints is no JSON
            verdicts = list(found)
    else:
        verdicts = list(_printed(found))
    failed = any(each.outcome == "failed" for each in verdicts)
    if as_json:
        report = {"passed": not failed, "verdicts": verdicts}
        click.echo(msgspec.json.format(msgspec.json.encode(report)))
    ctx.exit(1 if failed else 0)


def _verdicts(ctx: click.Context, asked: str, options: dict[str, Any]) -> Iterator[PartResult]:
    if find_spec("hypothesis") is None:
        raise ConfigError(f"this needs hypothesis: pip install '{DISTRIBUTION}[testing]'")
    wanted = targets(asked, plugins_of(ctx))
    model = options["model"] and locate(options["model"]).location

    from hypothesis import settings

    from fllm_api.cli.plugins.contracts import CheckOptions, verdicts

    settings.register_profile("check", database=None, derandomize=True)
    settings.load_profile("check")
    trial = CheckOptions(
        model=model, max_model_len=options["max_model_len"], options=dict(options["backend_option"])
    )
    for target in wanted:
        yield from verdicts(target, trial)


def _printed(verdicts: Iterable[PartResult]) -> Iterator[PartResult]:
    """The same, each told as it comes."""
    from rich.console import Console
    from rich.markup import escape
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    heading, counts = "", dict.fromkeys(COLORS, 0)
    for each in verdicts:
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
