"""``furiosa-llm plugins``: without a sub-command, the list. Each sub-command is imported when it is run."""

from __future__ import annotations

from typing import Any

import rich_click as click

from fllm.plugins.registry import Entry
from fllm_api.cli.commands import lazy_commands
from fllm_api.cli.options import CONTEXT_SETTINGS, PLUGIN_OPTIONS
from fllm_api.cli.param_types import plugins_of
from fllm_api.cli.plugins.listing import print_plugins

JSON = click.RichOption(["--json", "as_json"], is_flag=True, help="Print JSON.")
"""For every command that answers with a report."""

SUBCOMMANDS = (
    Entry("show", "fllm_api.cli.plugins.show:show", "Tell all of one plugin, or of one name."),
    Entry("check", "fllm_api.cli.plugins.check:check", "Hold a plugin to its contracts."),
    Entry("new", "fllm_api.cli.plugins.new:new", "Write a distribution with a plugin, to begin with."),
)


@click.group(
    "plugins",
    params=[JSON, *PLUGIN_OPTIONS],
    context_settings=CONTEXT_SETTINGS,
    invoke_without_command=True,
)
@click.pass_context
def plugins(ctx: click.RichContext, /, as_json: bool, **_: Any) -> None:
    """Show what is installed, from which distribution, and what failed to load and why."""
    if ctx.invoked_subcommand is None:
        print_plugins(plugins_of(ctx), as_json=as_json)
    elif as_json:
        raise click.UsageError(f"--json goes after {ctx.invoked_subcommand!r}")


for command in lazy_commands(SUBCOMMANDS):
    plugins.add_command(command)
