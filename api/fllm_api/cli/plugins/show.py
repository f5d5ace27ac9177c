"""``furiosa-llm plugins show``: print the details of a plugin or of one of its entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from fllm.plugins.options import Option
from fllm.plugins.plugin_options import NOT_GIVEN, OptionValue
from fllm_api.cli.loaded_plugins import plugins_of
from fllm_api.cli.options import CONTEXT_SETTINGS, PLUGIN_COMMAND_OPTIONS
from fllm_api.cli.plugins.description import Offer, PluginDescription, describe
from fllm_api.cli.plugins.json_option import JSON

if TYPE_CHECKING:
    from rich.table import Table


@click.command("show", params=[JSON, *PLUGIN_COMMAND_OPTIONS], context_settings=CONTEXT_SETTINGS)
@click.argument("name")
@click.pass_context
def show(ctx: click.RichContext, /, name: str, as_json: bool, **_: Any) -> None:
    """Show the details of NAME: a plugin, a distribution, or an entry such as a parser."""
    plugins = plugins_of(ctx)
    plugins.check_options(allow_missing=True)
    descriptions = list(describe(plugins, name))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(descriptions, enc_hook=str)))
    else:
        _print(descriptions)


def _print(descriptions: Iterable[PluginDescription]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for index, each in enumerate(descriptions):
        if index:
            console.rule()
        console.print(_grid(_plugin_rows(each)))
        if each.plugin.options:
            console.print(_value_table(each.plugin.options))
        for offer in each.offers:
            console.print()
            console.print(f"[bold]{offer.kind} {offer.name}[/bold]")
            console.print(_grid(_entry_rows(offer)))
            if offer.options:
                title = "--speculative-config" if offer.kind == "drafter" else f"--{offer.kind}-option"
                console.print(_option_table(title, offer.options))


def _plugin_rows(each: PluginDescription) -> Iterator[tuple[str, str]]:
    report = each.plugin
    yield "plugin", report.name
    yield "distribution", f"{report.distribution} {report.version}".strip()
    yield "summary", each.summary
    yield "entry point", report.source
    yield "status", each.status
    yield "where", report.where or ""
    yield "hooks", ", ".join(report.hooks)


def _entry_rows(offer: Offer) -> Iterator[tuple[str, str]]:
    yield "summary", offer.summary
    yield "target", offer.target
    for name, value in offer.properties.items():
        yield name, _format_value(value)
    yield "missing", offer.missing or ""
    yield "conflict", offer.conflict or ""


def _format_value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _grid(pairs: Iterable[tuple[str, str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, value in pairs:
        if value:
            grid.add_row(Text(name, style="dim"), Text(value))
    return grid


def _value_table(options: Iterable[OptionValue]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("--plugin-option", "type", "default", "value", "from", "meaning")
    for option in options:
        is_missing = option.required and option.source == NOT_GIVEN
        shown = ("", "") if is_missing else (_as_text(option.value), option.source)
        table.add_row(*map(Text, (option.name, option.type, _default(option), *shown, option.summary)))
    return table


def _option_table(flag: str, options: Iterable[Option]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(flag, "type", "default", "meaning")
    for option in options:
        table.add_row(*map(Text, (option.name, option.type, _default(option), option.summary)))
    return table


def _default(option: Option) -> str:
    return "required" if option.required else _as_text(option.default)


def _as_text(value: object) -> str:
    return (
        "" if value is None else value if isinstance(value, str) else str(msgspec.json.encode(value), "utf-8")
    )
