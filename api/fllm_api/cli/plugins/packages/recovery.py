"""Undo a change that was interrupted, at the next command of ``furiosa-llm plugins``."""

from __future__ import annotations

import rich_click as click

from fllm.errors import ConfigError, PluginError
from fllm_api.cli.plugins.packages.change_lock import change_lock, journal_directory
from fllm_api.cli.plugins.packages.environment import Environment
from fllm_api.cli.plugins.packages.journal import Journal


def recover() -> None:
    """Undo the change that the journal has, if any, unless the command that makes it still runs."""
    environment = Environment.current()
    directory = journal_directory(environment)
    if directory is None or not Journal(directory, environment).is_open:
        return
    try:
        with change_lock(environment) as (journal, _):
            undo_interrupted(journal)
    except (ConfigError, PluginError) as error:
        click.echo(f"furiosa-llm: warning: {error.message}", err=True)


def undo_interrupted(journal: Journal) -> None:
    """Undo an interrupted change. Raise `PluginError` if that fails."""
    if journal.is_open:
        click.echo(f"furiosa-llm: warning: {journal.undo()} was interrupted, and was undone", err=True)
