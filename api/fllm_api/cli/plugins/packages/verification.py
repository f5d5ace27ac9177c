"""Check an environment after a change, in fresh processes that have the new code."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from fllm.engine_host.parent_death import ending_with
from fllm.errors import PluginError
from fllm_api.cli.plugins.listing import SLOW_LOAD_SECONDS
from fllm_api.cli.plugins.packages.installers import PYTHON

TIMEOUT_SECONDS = 600
"""How long the checks of one distribution may take."""
ERROR_STATUS = 2
ERROR_PREFIX = "furiosa-llm: error: "
WARNING_PREFIX = "furiosa-llm: warning: "


class _Report(Struct, frozen=True):
    name: str
    distribution: str
    version: str
    error: str | None = None
    offers: dict[str, list[str]] = {}
    hooks: list[str] = []
    seconds: float = 0.0
    """How long it took to import."""

    @property
    def key(self) -> str:
        return f"{self.distribution}:{self.name}"


class LoadedPlugins(Struct, frozen=True):
    """What ``plugins --json`` reports of an environment."""

    plugins: list[_Report]
    conflicts: list[str]

    def offers(self, distribution: str) -> Iterator[tuple[str, str]]:
        """Yield the name and the contents of each plugin of a distribution."""
        for each in self.plugins:
            if each.distribution == distribution:
                named = [f"{kind}: {', '.join(names)}" for kind, names in each.offers.items()]
                offers = "; ".join(named) or f"hooks: {', '.join(each.hooks)}"
                slow = f" (slow to load: {each.seconds:.1f} s)" if each.seconds > SLOW_LOAD_SECONDS else ""
                yield each.name, each.error or offers + slow

    def problems(self, earlier: LoadedPlugins, removed: Sequence[str]) -> Iterator[str]:
        """Yield what is worse than it was earlier. Plugins of the removed distributions may be missing."""
        was = {each.key: each.error for each in earlier.plugins}
        for each in self.plugins:
            if each.error is not None and was.get(each.key) is None:
                yield f"plugin {each.name} ({each.distribution} {each.version}) does not load: {each.error}"
        names = {each.key for each in self.plugins}
        for report in earlier.plugins:
            if report.key not in names and report.distribution not in removed:
                yield f"plugin {report.name} ({report.distribution}) is no longer found"
        yield from (line for line in self.conflicts if line not in earlier.conflicts)


class _Verdict(Struct, frozen=True):
    plugin: str
    part: str
    check: str
    outcome: str
    reason: str = ""


class _Verdicts(Struct, frozen=True):
    verdicts: list[_Verdict]


class Verification:
    """Runs commands of the environment with the options of plugins of this one."""

    def __init__(self, options: Sequence[str], variables: Mapping[str, str] = {}) -> None:
        self._options = options
        self._variables = variables

    def loaded(self) -> LoadedPlugins:
        """Return which plugins load. Raise `PluginError` if the command itself fails."""
        return msgspec.json.decode(self._call("plugins", "--json", *self._options), type=LoadedPlugins)

    def failures(self, distribution: str, tools: Path | None) -> tuple[int, list[str]]:
        """Return the number of checks of a distribution's plugins that passed, and those that failed.

        ``tools`` is a directory with hypothesis if the environment has none.
        """
        paths = [str(tools)] if tools else []
        output = self._call("plugins", "check", distribution, "--json", *self._options, paths=paths)
        verdicts = msgspec.json.decode(output, type=_Verdicts).verdicts
        failed = [each for each in verdicts if each.outcome == "failed"]
        lines = [
            f"{each.plugin} {each.part}".strip() + f": {each.check}: {' '.join(each.reason.split())}"
            for each in failed
        ]
        return sum(each.outcome == "passed" for each in verdicts), lines

    def _call(self, *arguments: str, paths: Sequence[str] = ()) -> bytes:
        inherited = [path for path in [os.environ.get("PYTHONPATH")] if path]
        variables = {
            **os.environ,
            **self._variables,
            "PYTHONDONTWRITEBYTECODE": "1",  # so that only the installer adds files
            "PYTHONPATH": os.pathsep.join([*inherited, *paths]),
        }
        command = ending_with(os.getpid(), [*PYTHON, "-m", "fllm_api", *arguments])
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                env=variables,
                stdin=subprocess.DEVNULL,
                timeout=TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise PluginError(f"{_words(arguments)} did not end within {TIMEOUT_SECONDS} s") from None
        if done.returncode not in (0, 1) or not done.stdout.startswith(b"{"):
            raise PluginError(_reason(arguments, done))
        return done.stdout


def _words(arguments: Sequence[str]) -> str:
    return f"`furiosa-llm {' '.join(itertools.takewhile(lambda each: not each.startswith('-'), arguments))}`"


def _reason(arguments: Sequence[str], done: subprocess.CompletedProcess[bytes]) -> str:
    """Return in one line why a command failed: its own error, or how it ended and what it printed last."""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode == ERROR_STATUS and lines and lines[-1].startswith(ERROR_PREFIX):
        return lines[-1].removeprefix(ERROR_PREFIX)
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
    printed = [line for line in lines if not line.startswith(WARNING_PREFIX)]
    last = f": {printed[-1]}" if printed else ""
    return f"{_words(arguments)} ended with {how}, while a plugin had control{last}"
