"""Load plugins under test together with the installed ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fllm.errors import PluginError
from fllm.plugins.discovery import Candidate
from fllm.plugins.loader import Plugins, load_plugins
from fllm.plugins.plugin_options import option_tables


def plugins_with(
    *plugins: object, installed: bool = True, options: Mapping[str, Mapping[str, Any]] = {}
) -> Plugins:
    """Return the plugins of a server with these modules or objects added to the installed plugins.

    With ``installed=False``, load only the given ones. A plugin that is installed already is not added again.
    ``options`` are values of options, by the name of the plugin: the name of its module, if it is added.
    Raise `PluginError` if one of them cannot be loaded, `ConfigErrors` if an option is invalid or missing.
    """
    loaded = load_plugins() if installed else Plugins()
    for plugin in plugins:
        if plugin in loaded:
            continue
        loaded.load(_candidate(plugin))
        if error := loaded.reports[-1].error:
            raise PluginError(f"{loaded.reports[-1].name}: {error}")
    loaded.read_options(option_tables(options))
    loaded.check_options()
    return loaded


def _candidate(plugin: object) -> Candidate:
    name = getattr(plugin, "__name__", type(plugin).__name__)
    return Candidate(name, "fllm.testing", "", name, lambda: plugin)
