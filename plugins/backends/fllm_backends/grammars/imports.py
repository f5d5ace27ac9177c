"""Importing xgrammar without what it does not need here."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

UNUSED = ("torch", "transformers")
"""xgrammar imports them for helpers that nobody here calls: 2 s and 220 MB, against 0.2 s and 15 MB without.

Where a process has them already, it keeps them.
"""

_importing = threading.Lock()
"""Two threads may compile their first constraints at once."""


def import_xgrammar() -> Any:
    """The library; its own import of torch and transformers finds nothing behind the names."""
    with _importing:
        if "xgrammar" not in sys.modules:
            with _absent(UNUSED, None):
                importlib.import_module("tvm_ffi")  # does without torch, if there is none
            with _absent(UNUSED, _Nothing("nothing")):
                importlib.import_module("xgrammar")
    return sys.modules["xgrammar"]


@contextmanager
def _absent(names: tuple[str, ...], stand_in: ModuleType | None) -> Iterator[None]:
    missing = [name for name in names if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(missing, stand_in))
    try:
        yield
    finally:
        for name in missing:
            del modules[name]


class _Nothing(ModuleType):
    """Any attribute of it, any call and any class made from it is nothing, too."""

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> _Nothing:
        return self

    def __or__(self, _: object) -> _Nothing:
        return self

    def __mro_entries__(self, _: object) -> tuple[type, ...]:
        return ()

    __ror__ = __or__
