"""Options of plugins, and the configuration file."""

from __future__ import annotations

from functools import partial

import rich_click as click

from fllm_api.cli.config_file import read_config, read_plugins_config
from fllm_api.cli.loaded_plugins import keep_plugin_options
from fllm_api.cli.options.values import FILE
from fllm_api.cli.param_types import NonEmptyText, PluginOptionText

_config = partial(click.RichOption, panel="Plugins and configuration")

PLUGIN_OPTION = _config(
    ["--plugin-option"],
    type=PluginOptionText(),
    multiple=True,
    default=(),
    is_eager=True,
    expose_value=False,
    allow_from_autoenv=False,  # FURIOSA_LLM_PLUGIN_<NAME>_<KEY> sets one
    callback=keep_plugin_options,
    help="Option of a plugin; `furiosa-llm plugins show NAME` lists them.",
)
PLUGIN_OPTIONS = [
    _config(
        ["--plugin"],
        type=FILE,
        multiple=True,
        default=(),
        is_eager=True,
        help="Plugin to load from a .py file.",
    ),
    _config(
        ["--disable-plugin"],
        type=NonEmptyText(),
        multiple=True,
        default=(),
        is_eager=True,
        envvar=["FURIOSA_LLM_DISABLE_PLUGIN", "FLLM_DISABLE_PLUGINS"],
        help="Name of a plugin or distribution to disable.",
    ),
    _config(
        ["--allow-plugin"],
        type=NonEmptyText(),
        multiple=True,
        default=(),
        is_eager=True,
        help="Name of a third-party plugin or distribution to load; no others are imported.",
    ),
    PLUGIN_OPTION,
]
NO_PAGE = _config(
    ["--no-page"],
    is_flag=True,
    is_eager=True,
    help="Serve no page at `/`, and none of what it asks the server.",
)
LOCKED_PLUGINS = _config(
    ["--locked-plugins"],
    type=FILE,
    is_eager=True,
    help="Start only with the third-party plugins of this file, which `furiosa-llm plugins lock` writes.",
)
RELOAD = _config(
    ["--reload"],
    is_flag=True,
    help="Import --plugin files and editable distributions again when they change. The model stays loaded.",
)
CONFIG = _config(["--config"], type=FILE, is_eager=True, callback=read_config, help="TOML file with options.")
PLUGINS_CONFIG = _config(
    ["--config"],
    type=FILE,
    is_eager=True,
    expose_value=False,
    envvar="FURIOSA_LLM_CONFIG",
    callback=read_plugins_config,
    help="TOML file with options of plugins; other options are ignored.",
)
PLUGIN_COMMAND_OPTIONS = [PLUGINS_CONFIG, *PLUGIN_OPTIONS]
"""Options of commands that load plugins and serve nothing."""
