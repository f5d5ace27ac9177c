"""``furiosa-llm plugins search``: find plugins in indexes, without the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click
from msgspec import Struct

from fllm.plugins.discovery import SERVER, normalize_name
from fllm.plugins.hooks import API_VERSION
from fllm_api.cli.options import CONTEXT_SETTINGS, PLUGIN_COMMAND_OPTIONS
from fllm_api.cli.plugins.json_option import JSON
from fllm_api.cli.plugins.packages.index import IndexedPlugin, Listed, read_indexes
from fllm_api.cli.plugins.packages.options import INDEX

if TYPE_CHECKING:
    from rich.table import Table


class Found(Struct, frozen=True):
    """A plugin that was found."""

    plugin: IndexedPlugin
    index: str
    """Path or URL of the index."""
    installed: str | None
    """Version of the installed distribution."""
    built_in: bool
    supported: bool
    """Whether this server has the version of the plugin API that it needs."""


@click.command("search", params=[JSON, INDEX, *PLUGIN_COMMAND_OPTIONS], context_settings=CONTEXT_SETTINGS)
@click.argument("text", required=False, default="")
def search(text: str, as_json: bool, index: Sequence[str], **_: Any) -> None:
    """Find plugins whose name, summary, kind or entries contain TEXT; without it, list all.

    The server's own index is a file of the installation. Others are read with --index.
    """
    found = [_found(each) for each in read_indexes(index) if _matches(each.plugin, text)]
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({"plugins": found})))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if found:
        console.print(_table(found))
    else:
        console.print(f"no plugin has {text!r}", markup=False)


def _matches(plugin: IndexedPlugin, text: str) -> bool:
    texts = (plugin.name, plugin.distribution, plugin.summary, *plugin.kinds, *plugin.entries)
    return all(any(word in each.lower() for each in texts) for word in text.lower().split())


def _found(listed: Listed) -> Found:
    plugin = listed.plugin
    return Found(
        plugin=plugin,
        index=listed.index,
        installed=_installed(plugin.distribution),
        built_in=normalize_name(plugin.distribution) == SERVER,
        supported=plugin.requires.FLLM_API_VERSION <= API_VERSION,
    )


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _table(found: Sequence[Found]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("plugin", "distribution", "installed", "kind", "needs", "summary")
    for each in found:
        plugin = each.plugin
        installed = "built in" if each.built_in else each.installed or "no"
        cells = (
            plugin.name,
            plugin.distribution,
            installed,
            "\n".join(plugin.kinds),
            "\n".join(_needs(each)),
            plugin.summary,
        )
        table.add_row(*map(Text, cells))
    return table


def _needs(found: Found) -> Iterator[str]:
    requires = found.plugin.requires
    if not found.supported:
        yield f"plugin API {requires.FLLM_API_VERSION} (this server: {API_VERSION})"
    yield from (f"extra {extra}" for extra in requires.extras)
