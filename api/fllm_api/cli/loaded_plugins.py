"""The plugins of a command line, and the values that it has for their options."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click
from click.core import ParameterSource

from fllm.config import PluginConfig, PluginOption
from fllm.plugins.loader import Plugins, load_plugins
from fllm.plugins.plugin_options import option_tables, option_variables

OPTION_TABLES = "fllm.plugin_option_tables"
"""Key of ``click.Context.meta``: the tables ``[plugins.NAME]`` of the configuration file."""
_GIVEN = "fllm.plugin_options"
PAGE = "furiosa-llm-server:page"
"""The plugin that ``--no-page`` disables."""


def plugins_of(ctx: click.Context) -> Plugins:
    """Return the plugins of this command line. They are loaded once per context."""
    plugins = ctx.meta.get("fllm.plugins")
    if plugins is None:
        config = plugin_config(ctx)
        if isinstance(lock := ctx.params.get("locked_plugins"), Path):  # unset while click parses
            from fllm_api.cli.plugin_lock.lock_check import check_lock

            check_lock(lock, config)  # before any of them is imported
        plugins = ctx.meta["fllm.plugins"] = load_plugins(config)
    assert isinstance(plugins, Plugins)
    return plugins


def plugin_config(ctx: click.Context) -> PluginConfig:
    """Return the values of the options that say which plugins are loaded, also before click has parsed them.

    ``--help`` needs them that early. Values of a group and of its subcommand are combined.
    """
    outer = PluginConfig() if ctx.parent is None else plugin_config(ctx.parent)
    for param in ctx.command.params:
        if param.is_eager and param.name not in ctx.params:
            param.handle_parse_result(ctx, {}, [])
    return PluginConfig(
        paths=(*outer.paths, *map(str, ctx.params.get("plugin", ()))),
        disabled=(
            *outer.disabled,
            *ctx.params.get("disable_plugin", ()),
            *((PAGE,) if ctx.params.get("no_page") else ()),
        ),
        allowed=_allowed(ctx, outer),
        options=(
            *option_tables(ctx.meta.get(OPTION_TABLES, {})),
            *option_variables(os.environ),
            *ctx.meta.get(_GIVEN, ()),
        ),
    )


def _allowed(ctx: click.Context, outer: PluginConfig) -> tuple[str, ...] | None:
    """Return the names of the closed list. An empty list of the file allows none; without a list, all."""
    names = ctx.params.get("allow_plugin", ())
    is_given = bool(names) or ctx.get_parameter_source("allow_plugin") is ParameterSource.DEFAULT_MAP
    return (*(outer.allowed or ()), *names) if is_given else outer.allowed


def keep_plugin_options(
    ctx: click.Context,
    param: click.Parameter,  # noqa: ARG001
    given: tuple[PluginOption, ...],
) -> None:
    """Keep the values of ``--plugin-option``, of a group and of its subcommand. Callback of the option."""
    ctx.meta[_GIVEN] = (*ctx.meta.get(_GIVEN, ()), *given)
