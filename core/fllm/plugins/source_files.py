"""The source files of plugins that are being developed, and how to import them again."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

import msgspec
from msgspec import Struct

from fllm.config import PluginConfig
from fllm.plugins.discovery import Candidate, candidates


class _DirectoryInfo(Struct, frozen=True):
    editable: bool = False


class _DirectUrl(Struct, frozen=True):
    """``direct_url.json`` of a distribution (PEP 610)."""

    dir_info: _DirectoryInfo = _DirectoryInfo()


class PluginSources:
    """The files of ``--plugin``, and the packages of distributions that are installed as editable."""

    def __init__(self, config: PluginConfig) -> None:
        found = [each for each in candidates(config) if _is_own_file(each) or _is_editable(each)]
        self.names = frozenset(each.name for each in found)
        """Names of the plugins."""
        self._roots = sorted({root for each in found for root in _roots(each)})

    def __contains__(self, file: Path) -> bool:
        """Return whether this is one of the files."""
        return any(file == root or root in file.parents for root in self._roots)

    def snapshot(self) -> Mapping[Path, tuple[int, int]]:
        """Return the time of change and the size of each file. Files of byte code are left out."""
        states: dict[Path, tuple[int, int]] = {}
        for root in self._roots:
            for file in [root] if root.is_file() else root.rglob("*"):
                with suppress(OSError):  # it was just removed
                    if file.suffix != ".pyc" and file.is_file():
                        status = file.stat()
                        states[file] = (status.st_mtime_ns, status.st_size)
        return states

    def forget_modules(self) -> dict[str, ModuleType]:
        """Remove the imported modules, so that they are imported again. Return them."""
        found = {name: module for name, module in sys.modules.items() if self._has(module)}
        for name, module in found.items():
            del sys.modules[name]
            # Byte code knows the time of change only in seconds, and the size may be the same.
            with suppress(OSError, NotImplementedError):
                Path(importlib.util.cache_from_source(str(module.__file__))).unlink()
        importlib.invalidate_caches()
        return found

    def restore_modules(self, modules: Mapping[str, ModuleType]) -> None:
        """Put back what `forget_modules` has returned, in the place of what was imported since."""
        self.forget_modules()
        sys.modules.update(modules)

    def _has(self, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        return isinstance(file, str) and Path(file) in self


def _is_own_file(candidate: Candidate) -> bool:
    """Return whether this is a file of ``--plugin`` that is not one of the server, such as `ECHO_PLUGIN`."""
    return candidate.is_file and Path(__file__).parents[1] not in Path(candidate.source).parents


def _is_editable(candidate: Candidate) -> bool:
    if candidate.is_built_in:
        return False
    with suppress(PackageNotFoundError, OSError, msgspec.DecodeError):
        content = distribution(candidate.distribution).read_text("direct_url.json")
        return bool(content) and msgspec.json.decode(content or "", type=_DirectUrl).dir_info.editable
    return False


def _roots(candidate: Candidate) -> Iterator[Path]:
    """Yield the file of a plugin, or the directories of its package."""
    if candidate.is_file:
        yield Path(candidate.source)
        return
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(candidate.source.partition(":")[0].partition(".")[0])
        if spec is not None and spec.submodule_search_locations:
            yield from (Path(place).resolve() for place in spec.submodule_search_locations)
        elif spec is not None and spec.origin:
            yield Path(spec.origin).resolve()
