"""Undo a change that was interrupted, at the next command of ``furiosa-llm plugins``."""

from __future__ import annotations

import rich_click as click

from fllm.errors import ConfigError, PluginError
from fllm_api.cli.plugins.packages.change_lock import change_lock, journal_directory
from fllm_api.cli.plugins.packages.environment import Environment
from fllm_api.cli.plugins.packages.journal import Journal


def recover() -> None:
    """Undo the change that the journal has, if any, unless the command that makes it still runs."""
    if not is_interrupted():
        return
    try:
        with change_lock(Environment.current()) as (journal, _):
            undo_interrupted(journal)
    except (ConfigError, PluginError) as error:
        click.echo(f"furiosa-llm: warning: {error.message}", err=True)


def is_interrupted() -> bool:
    """Return whether a change of this environment is in progress, or was interrupted and not undone yet."""
    environment = Environment.current()
    directory = journal_directory(environment)
    return directory is not None and Journal(directory, environment).is_open


def undo_interrupted(journal: Journal) -> None:
    """Undo an interrupted change. Raise `PluginError` if that fails."""
    if journal.is_open:
        click.echo(f"furiosa-llm: warning: {journal.undo()} was interrupted, and was undone", err=True)
