"""The list of plugins with their distribution, entries and load status."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import rich_click as click

from fllm.extras import install_command
from fllm.plugins.listing import Listing, list_plugins
from fllm.plugins.loader import PluginReport, Plugins

SLOW_LOAD_SECONDS = 0.1
"""Load time in seconds above which a plugin is reported as slow, because it imports too much."""
UNNAMED_HOOKS = ("fllm_chat_template", "fllm_collectors", "fllm_page_panels", "fllm_routes")
"""Hooks whose results are not known before the server starts."""


def print_plugins(plugins: Plugins, *, as_json: bool) -> None:
    """Print the plugins as a table or as JSON."""
    listing = list_plugins(plugins)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(listing)))
    else:
        _print(listing)


def _print(listing: Listing) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("plugin", "distribution", "offers", "status")
    for report in listing.plugins:
        distribution = f"{report.distribution} {report.version}".strip()
        table.add_row(report.name, distribution, Text("\n".join(_offers(report))), load_status(report))
    console = Console()
    console.print(table)
    for extra, names in listing.missing_extras.items():
        console.print(f"{', '.join(names)}: {install_command(extra)}", markup=False, soft_wrap=True)
    for line in listing.conflicts:
        console.print(f"conflict: {line}", markup=False)
    for name in listing.unmatched:
        console.print(f"--disable-plugin {name}: no plugin has this name", markup=False)
    for name in listing.unmatched_allowed:
        console.print(f"--allow-plugin {name}: no plugin has this name", markup=False)


def _offers(report: PluginReport) -> Iterator[str]:
    for kind, names in report.offers.items():
        yield f"{kind}: {', '.join(names)}"
    hooks = [hook for hook in report.hooks if hook in UNNAMED_HOOKS]
    if hooks:
        yield f"hooks: {', '.join(hooks)}"
    if report.options:
        yield f"options: {', '.join(option.name for option in report.options)}"


def load_status(report: PluginReport) -> str:
    """Return the load status of a plugin, with the reason if it is not in use."""
    if report.error:
        return f"left out: {report.error}"
    if report.not_allowed:
        return "left out: --allow-plugin does not name it"
    if report.disabled:
        return "disabled"
    return f"slow to load: {report.seconds:.1f} s" if report.seconds > SLOW_LOAD_SECONDS else "ok"
