"""Keeping what only this process may know out of everybody's sight."""

from __future__ import annotations

import os
import sys

import rich_click as click
from setproctitle import setproctitle

from fllm_api.api_keys import Keys

API_KEY = "FURIOSA_LLM_API_KEY"


def hash_keys(ctx: click.Context, param: click.Parameter, keys: tuple[str, ...]) -> Keys:
    """The callback of ``--api-key``: only hashes go on."""
    if isinstance(ctx.default_map, dict):
        ctx.default_map.pop(param.name or "", None)
    return Keys(keys)


def hide_arguments(title: str) -> None:
    """Show the title wherever processes are listed, and leave no key where one could be read or inherited."""
    # Overwrites the command line and the environment as the kernel shows them. It must find them complete.
    setproctitle(title)
    os.environ.pop(API_KEY, None)
    for arguments in (sys.argv, sys.orig_argv):
        del arguments[1:]
