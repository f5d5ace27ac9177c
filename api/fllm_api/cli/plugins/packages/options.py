"""Options that several commands of distributions have."""

from __future__ import annotations

import rich_click as click

from fllm_api.cli.options import PLUGIN_COMMAND_OPTIONS
from fllm_api.cli.param_types import NonEmptyText

INDEX = click.RichOption(
    ["--index"],
    type=NonEmptyText(),
    multiple=True,
    default=(),
    envvar="FURIOSA_LLM_INDEX",
    metavar="PATH|URL",
    help="Another index of plugins.",
)
YES = click.RichOption(["--yes", "-y"], is_flag=True, help="Do not ask.")
NO_CHECK = click.RichOption(["--no-check"], is_flag=True, help="Keep the change without any check.")
PIP_ARGS = click.RichOption(
    ["--pip-args"],
    metavar="TEXT",
    envvar="FURIOSA_LLM_PIP_ARGS",
    help="Arguments for pip or uv, such as '--no-index --find-links DIRECTORY'.",
)
CHANGE_OPTIONS = [YES, NO_CHECK, *PLUGIN_COMMAND_OPTIONS]
INSTALL_OPTIONS = [INDEX, PIP_ARGS, *CHANGE_OPTIONS]
