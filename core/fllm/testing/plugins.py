"""A server's plugins with yours among them."""

from __future__ import annotations

from fllm.errors import PluginError
from fllm.plugins.discovery import Candidate
from fllm.plugins.loader import Plugins, load_plugins


def plugins_with(*plugins: object, installed: bool = True) -> Plugins:
    """The plugins of a server that has these modules (or objects) too, or only these.

    One that is installed is there already. Raises `PluginError` where one of them would be left out.
    """
    loaded = load_plugins() if installed else Plugins()
    for plugin in plugins:
        if plugin in loaded:
            continue
        loaded.load(_candidate(plugin))
        if error := loaded.reports[-1].error:
            raise PluginError(f"{loaded.reports[-1].name}: {error}")
    return loaded


def _candidate(plugin: object) -> Candidate:
    name = getattr(plugin, "__name__", type(plugin).__name__)
    return Candidate(name, "fllm.testing", "", name, lambda: plugin)
