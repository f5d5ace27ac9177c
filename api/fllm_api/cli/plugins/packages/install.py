"""``furiosa-llm plugins install``: install plugins, check them, and undo it if they fail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rich_click as click

from fllm_api.cli.options import CONTEXT_SETTINGS
from fllm_api.cli.plugins.packages.index import read_indexes
from fllm_api.cli.plugins.packages.installation import Installation
from fllm_api.cli.plugins.packages.options import INSTALL_OPTIONS
from fllm_api.cli.plugins.packages.targets import resolve_target


@click.command("install", params=[*INSTALL_OPTIONS], context_settings=CONTEXT_SETTINGS)
@click.argument("what", nargs=-1, required=True, metavar="NAME|PATH|URL...")
@click.pass_context
def install(ctx: click.RichContext, /, what: Sequence[str], index: Sequence[str], **options: Any) -> None:
    """Install plugins with pip, uv or pipx, as the environment has it.

    NAME is that of a plugin in an index (`furiosa-llm plugins search`), or of a distribution. What will
    change is shown first. Then the contract tests of the plugins run, and all other plugins must still load;
    otherwise everything is as before. A plugin is code with the server's rights.
    """
    listed = read_indexes(index)
    targets = [resolve_target(text, listed) for text in dict.fromkeys(what)]
    Installation(ctx, f"plugins install {' '.join(what)}", targets, options).run()
