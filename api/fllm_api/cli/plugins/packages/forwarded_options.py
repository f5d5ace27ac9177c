"""Options of plugins for commands that run in a fresh process."""

from __future__ import annotations

import rich_click as click

from fllm_api.cli.config_file import CONFIG_FILE
from fllm_api.cli.loaded_plugins import plugin_config


def forwarded_options(ctx: click.Context) -> list[str]:
    """Return the arguments of this command line that say which plugins are loaded, and with what options."""
    config = plugin_config(ctx)
    given = [each for each in config.options if each.source == "command line"]
    pairs = [
        *(("--plugin", path) for path in config.paths),
        *(("--disable-plugin", name) for name in config.disabled),
        *(("--allow-plugin", name) for name in config.allowed or ()),
        *(("--plugin-option", f"{each.plugin}.{each.name}={each.value}") for each in given),
    ]
    file = ctx.meta.get(CONFIG_FILE)
    arguments = [argument for pair in pairs for argument in pair]
    return [*arguments, "--config", str(file)] if file else arguments
