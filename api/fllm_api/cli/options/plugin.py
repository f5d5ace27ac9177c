"""Options of plugins, and the configuration file."""

from __future__ import annotations

from functools import partial

import rich_click as click

from fllm_api.cli.config_file import read_config
from fllm_api.cli.options.values import FILE
from fllm_api.cli.param_types import NonEmptyText

_config = partial(click.RichOption, panel="Plugins and configuration")

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
]
CONFIG = _config(["--config"], type=FILE, is_eager=True, callback=read_config, help="TOML file with options.")
