"""Finds plugins: entry points of installed distributions, and the files of ``--plugin``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import Distribution, distributions
from os.path import isabs
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from msgspec import Struct

from fllm.config import PluginConfig
from fllm.errors import PluginError

GROUP = "fllm"
"""The entry-point group."""
SERVER = "furiosa-llm-server"
"""Distribution of the built-in plugins."""


class Candidate(Struct, frozen=True):
    """A plugin that was found but not imported yet."""

    name: str
    distribution: str
    """Name of the distribution, or path of the file."""
    version: str
    source: str
    """Module or file that the plugin is loaded from."""
    load: Callable[[], object]
    """Imports the plugin; raises what its code raises."""

    @property
    def is_file(self) -> bool:
        """Whether the plugin is a file of ``--plugin``."""
        return self.distribution == self.source and isabs(self.source)  # a module may be named as its package

    @property
    def is_built_in(self) -> bool:
        """Whether the plugin is part of the server's own distribution."""
        return normalize_name(self.distribution) == SERVER

    @property
    def names(self) -> set[str]:
        """Normalized names by which the plugin can be disabled."""
        return {
            normalize_name(name)
            for name in (self.name, self.distribution, f"{self.distribution}:{self.name}")
        }


def normalize_name(name: str) -> str:
    """Return a name as package indices compare it."""
    return name.lower().replace("_", "-").replace(".", "-")


def candidates(config: PluginConfig) -> list[Candidate]:
    """Return every plugin that a configuration refers to: installed ones first, then files."""
    return [*installed(), *map(from_file, dict.fromkeys(config.paths))]


def installed() -> list[Candidate]:
    """Return every entry point of the group, sorted by distribution and name."""
    return sorted(_installed(), key=lambda candidate: (candidate.distribution, candidate.name))


def from_file(path: str) -> Candidate:
    """Return a ``.py`` file as a plugin. The file is read when the plugin is loaded."""
    file = Path(path).resolve()
    return Candidate(file.stem, str(file), "", str(file), lambda: _import_file(file))


def _installed() -> Iterator[Candidate]:
    seen: set[str] = set()
    for distribution in distributions():
        if f"[{GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
            continue  # reading the name parses the metadata: 1 ms each, and there may be hundreds
        name = distribution.metadata["Name"] or "unknown"
        if name not in seen:  # an editable install that is also on sys.path is found twice
            seen.add(name)
            yield from _of(distribution, name)


def _of(distribution: Distribution, name: str) -> Iterator[Candidate]:
    version = distribution.version or ""
    try:
        points = [point for point in distribution.entry_points if point.group == GROUP]
    except (TypeError, ValueError) as error:
        yield Candidate(name, name, version, "entry_points.txt", partial(_malformed, error))
        return
    for point in points:
        yield Candidate(point.name, name, version, point.value, point.load)


def _malformed(error: Exception) -> NoReturn:
    raise PluginError(f"its entry_points.txt is malformed: {error}")


def _import_file(file: Path) -> ModuleType:
    name = file.stem
    if not file.is_file():
        raise PluginError(f"file not found: {str(file)!r}")
    if file.suffix != ".py":
        raise PluginError(f"{str(file)!r} is not a Python file (.py)")
    if (before := sys.modules.get(name)) and getattr(before.__spec__, "origin", None) == str(file):
        return before  # already imported by an earlier search of this process
    if _taken(name, file):
        raise PluginError(f"a module named {name!r} exists already; rename the file")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that entries can name it as their target
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _taken(name: str, file: Path) -> bool:
    """Return whether the file's name would hide another module that is, or may be, imported."""
    if name in sys.modules:
        return True
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin != str(file)
