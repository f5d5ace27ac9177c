"""A change of the environment: planned, shown, made, checked, and undone if a check fails."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import Distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import rich_click as click
from msgspec import Struct

from fllm.errors import FllmError, PluginError
from fllm_api.cli.plugins.packages.change_lock import change_lock
from fllm_api.cli.plugins.packages.environment import Environment
from fllm_api.cli.plugins.packages.installers import Installer, find_installer
from fllm_api.cli.plugins.packages.journal import Journal
from fllm_api.cli.plugins.packages.recovery import undo_interrupted
from fllm_api.cli.plugins.packages.staging import StagedDistribution

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Change(Struct, frozen=True, kw_only=True):
    """What will be installed and removed."""

    action: str
    """The command in words, for messages."""
    installed: tuple[StagedDistribution, ...] = ()
    removed: tuple[str, ...] = ()
    """Normalized names of distributions that are removed, and not replaced."""


class Workplace(Struct, frozen=True):
    """The environment, while no other command changes it."""

    environment: Environment
    installer: Installer
    journal: Journal
    scratch: Path
    """A temporary directory."""


@contextmanager
def workplace() -> Iterator[Workplace]:
    """Hold the environment. Raise `ConfigError` if it has no installer or if another command changes it.

    A change that was interrupted is undone first. A file that can't be written is a `PluginError`, such as on
    a full disk.
    """
    environment = Environment.current()
    installer = find_installer(environment)
    try:
        with change_lock(environment) as (journal, lock), TemporaryDirectory(prefix="furiosa-llm-") as name:
            undo_interrupted(journal)
            installer.hold(lock)
            yield Workplace(environment, installer, journal, Path(name))
    except BrokenPipeError:  # of the standard output
        raise
    except OSError as error:
        raise PluginError(f"the environment can't be changed: {error}") from error


def show(change: Change, installed: dict[str, Distribution]) -> None:
    """Print what a change adds, replaces and removes."""
    for each in change.installed:
        old = installed.get(each.key)
        mark, versions = ("+", each.version) if old is None else ("~", f"{old.version} -> {each.version}")
        plugins = f"  plugins: {', '.join(each.plugins)}" if each.plugins else ""
        click.echo(printable(f"  {mark} {each.name} {versions}  {format_size(each.size)}{plugins}"))
    for key in change.removed:
        click.echo(printable(f"  - {installed[key].metadata['Name']} {installed[key].version}"))


def confirm(*, yes: bool) -> None:
    """Ask whether to proceed. Raise `click.UsageError` if nobody can answer, `click.Abort` if not."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("the standard input is not a terminal, so nobody can answer: add --yes")
    click.confirm("Proceed?", abort=True)


def make(place: Workplace, change: Change, run: Callable[[], None], check: Callable[[], None]) -> None:
    """Make a change and check it. If either fails or is interrupted, undo it exactly, and raise the error."""
    installed = place.environment.distributions()
    replaced = [installed[key] for key in _replaced(change) if key in installed]
    old = [path for each in replaced for path in place.environment.files(each)]
    new = [path for each in change.installed for path in each.paths]
    try:
        place.journal.begin(change.action, [*old, place.environment.pipx_metadata], new)
    except OSError as error:
        raise PluginError(f"the files that will change can't be copied: {error}") from error
    try:
        with _termination_interrupts():
            run()
            check()
    except BaseException as error:
        undone = _undo(place.journal)
        if isinstance(error, FllmError):
            raise PluginError(f"{error.message}; {undone}") from error
        click.echo(f"furiosa-llm: {undone}", err=True)
        raise
    place.journal.accept()


def _replaced(change: Change) -> Sequence[str]:
    return [*(each.key for each in change.installed), *change.removed]


def _undo(journal: Journal) -> str:
    """Undo a change, and ignore further signals meanwhile."""
    handlers = {each: signal.signal(each, signal.SIG_IGN) for each in _SIGNALS}
    try:
        return f"{journal.undo()} was undone"
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Handle SIGTERM, and the end of the terminal, like Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    previous = {each: signal.signal(each, interrupt) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


def format_size(size: int) -> str:
    """Return a number of bytes for people."""
    amount, unit = size / 1000, "kB"
    for unit in ("kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.1f} {unit}"


def printable(text: str) -> str:
    """Return a text of third-party metadata without characters that a terminal would interpret."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
