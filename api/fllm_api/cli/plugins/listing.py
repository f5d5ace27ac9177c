"""The list of plugins: what is installed, from which distribution, what failed to load and why."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import rich_click as click
from msgspec import Struct

from fllm.plugins.loader import PluginReport, Plugins
from fllm.plugins.registry import conflict_message

SLOW_LOAD_SECONDS = 0.1
"""Seconds; a plugin that takes longer to name its parts imports too much."""


class Listing(Struct, frozen=True):
    """What ``--json`` prints."""

    plugins: list[PluginReport]
    conflicts: list[str]
    unmatched: list[str]


def print_plugins(found: Plugins, *, as_json: bool) -> None:
    """Print a table, or JSON."""
    listing = Listing(found.reports, list(conflicts(found)), found.unmatched)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(listing)))
    else:
        _print(listing)


def conflicts(found: Plugins) -> Iterator[str]:
    """One line for each name that is offered twice."""
    for registry in found.registries():
        for name, rivals in registry.conflicts():
            yield conflict_message(registry.kind, name, rivals)


def _print(listing: Listing) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("plugin", "distribution", "offers", "status")
    for report in listing.plugins:
        whose = f"{report.distribution} {report.version}".strip()
        table.add_row(report.name, whose, Text("\n".join(_offers(report))), status(report))
    console = Console()
    console.print(table)
    for line in listing.conflicts:
        console.print(f"conflict: {line}", markup=False)
    for name in listing.unmatched:
        console.print(f"--disable-plugin {name}: there is no such plugin", markup=False)


def _offers(report: PluginReport) -> Iterator[str]:
    for kind, names in report.offers.items():
        yield f"{kind}: {', '.join(names)}"
    others = [hook for hook in report.hooks if hook in UNNAMED_HOOKS]
    if others:
        yield f"hooks: {', '.join(others)}"


UNNAMED_HOOKS = ("fllm_chat_template", "fllm_collectors", "fllm_routes")
"""Hooks whose answers are not known before the server starts."""


def status(report: PluginReport) -> str:
    """Whether it is in use, and if not, why."""
    if report.error:
        return f"left out: {report.error}"
    if report.disabled:
        return "disabled"
    return f"slow to load: {report.seconds:.1f} s" if report.seconds > SLOW_LOAD_SECONDS else "ok"
