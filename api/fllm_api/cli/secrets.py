"""Hide API keys and other secrets from process listings, the environment and memory."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable

import rich_click as click
from setproctitle import setproctitle

from fllm_api.api_keys import ApiKeys

SECRETS = ("FURIOSA_LLM_API_KEY", "FURIOSA_LLM_ADMIN_KEY", "FURIOSA_LLM_SSL_KEYFILE_PASSWORD")
"""Environment variables that child processes must not inherit."""


def hash_keys(ctx: click.Context, param: click.Parameter, keys: tuple[str, ...]) -> ApiKeys:
    """Hash the keys of ``--api-key`` or ``--admin-key``. Callback of the options."""
    if isinstance(ctx.default_map, dict):
        ctx.default_map.pop(param.name or "", None)
    secret = ctx.meta.setdefault(__name__, secrets.token_bytes(32))  # of both options
    return ApiKeys(keys, f"--{(param.name or '').replace('_', '-')}", secret)


def hide_arguments(title: str) -> None:
    """Set the process title, and remove arguments and keys from where others can read or inherit them."""
    # setproctitle overwrites the command line and environment that the kernel shows. It must run before the
    # variables below are removed, because it needs them complete.
    setproctitle(title)
    for name in SECRETS:
        os.environ.pop(name, None)
    for arguments in (sys.argv, sys.orig_argv):
        del arguments[1:]


def hide_variables(names: Iterable[str]) -> None:
    """Remove more variables from what child processes inherit, after `hide_arguments`."""
    for name in names:
        os.environ.pop(name, None)
