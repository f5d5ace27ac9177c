"""The command group ``furiosa-llm plugins``. Its subcommands are imported when they run."""

from __future__ import annotations

from typing import Any

import rich_click as click

from fllm.plugins.registry import Entry
from fllm_api.cli.commands import lazy_commands
from fllm_api.cli.loaded_plugins import plugins_of
from fllm_api.cli.options import CONTEXT_SETTINGS, PLUGIN_COMMAND_OPTIONS
from fllm_api.cli.plugins.json_option import JSON
from fllm_api.cli.plugins.listing import print_plugins
from fllm_api.cli.plugins.packages.recovery import recover

SUBCOMMANDS = (
    Entry("show", "fllm_api.cli.plugins.show:show", "Show the details of a plugin or of an entry."),
    Entry("check", "fllm_api.cli.plugins.check:check", "Run the contract tests on a plugin."),
    Entry("parse", "fllm_api.cli.plugins.parse:parse", "Print the events that a parser makes of a text."),
    Entry("search", "fllm_api.cli.plugins.packages.search:search", "Find plugins in indexes."),
    Entry("install", "fllm_api.cli.plugins.packages.install:install", "Install plugins, and check them."),
    Entry("upgrade", "fllm_api.cli.plugins.packages.upgrade:upgrade", "Upgrade plugins, and check them."),
    Entry("uninstall", "fllm_api.cli.plugins.packages.uninstall:uninstall", "Remove plugins."),
    Entry(
        "lock",
        "fllm_api.cli.plugins.packages.lock:lock",
        "Write or check versions and digests of plugins.",
    ),
    Entry("template", "fllm_api.cli.plugins.template:template", "Print the prompt that a chat becomes."),
    Entry("new", "fllm_api.cli.plugins.new:new", "Create a project for a new plugin."),
)


@click.group(
    "plugins",
    params=[JSON, *PLUGIN_COMMAND_OPTIONS],
    context_settings=CONTEXT_SETTINGS,
    invoke_without_command=True,
)
@click.pass_context
def plugins(ctx: click.RichContext, /, as_json: bool, **_: Any) -> None:
    """List the plugins with their distribution, entries and load status."""
    recover()
    if ctx.invoked_subcommand is None:
        loaded = plugins_of(ctx)
        loaded.check_options(allow_missing=True)
        print_plugins(loaded, as_json=as_json)
    elif as_json:
        raise click.UsageError(f"put --json after {ctx.invoked_subcommand!r}")


for command in lazy_commands(SUBCOMMANDS):
    plugins.add_command(command)
