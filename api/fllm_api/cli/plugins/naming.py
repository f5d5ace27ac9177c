"""What follows from the name of a new plugin, and which names it may have."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.util import find_spec
from typing import Any

from msgspec import Struct

from fllm.errors import ConfigError
from fllm.plugins.loader import Plugins
from fllm.plugins.registry import BackendEntry, Registry
from fllm_api.cli.plugins.plugin_kinds import PluginKind

NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*+(?:[-_][A-Za-z0-9]++)*+")

LONGEST = 32


class PluginNames(Struct, frozen=True):
    """Of the distribution, and of what is in it."""

    name: str
    module: str
    """Also what the user picks it by."""
    base: str
    """What the names of its classes begin with."""
    cls: str


def derive_names(name: str, kind: PluginKind, plugins: Plugins) -> PluginNames:
    """The names; raises `ConfigError` that says what is wrong with the one that was given."""
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise ConfigError(
            f"NAME {name!r}: a letter, then letters, digits, and single - or _ between them are meant, "
            f"{LONGEST} at most"
        )
    module = name.lower().replace("-", "_")
    if keyword.iskeyword(module):
        raise ConfigError(f"NAME {name!r}: {module!r} is a word of Python's own; choose another name")
    if module in sys.stdlib_module_names or _is_installed(module):
        raise ConfigError(f"NAME {name!r}: a module {module!r} exists already; choose another name")
    if kind.registry is not None:
        _check_new(module, getattr(plugins, kind.registry))
    base = "".join(part[0].upper() + part[1:] for part in re.split("[-_]", name))
    cls = base if base.endswith(kind.suffix) else base + kind.suffix
    if cls == kind.base:
        raise ConfigError(f"NAME {name!r}: its class would be called {cls}, as ours is; choose another name")
    if cls.startswith("Test"):
        raise ConfigError(f"NAME {name!r}: pytest would take its class {cls} for a test; choose another name")
    return PluginNames(name, module, base, cls)


def _is_installed(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def _check_new(module: str, registry: Registry[Any]) -> None:
    for each in registry:
        served = each.entry.devices if isinstance(each.entry, BackendEntry) else ()
        if module in (each.entry.name, *served):
            raise ConfigError(
                f"NAME: the {registry.kind} {module!r} is offered by {each.distribution} already; "
                "choose another name"
            )
