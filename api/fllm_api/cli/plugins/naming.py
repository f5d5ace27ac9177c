"""Validate the name of a new plugin, and derive its module and class names."""

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

MAX_NAME_LENGTH = 32


class PluginNames(Struct, frozen=True):
    """Names of a new distribution and of its contents."""

    name: str
    module: str
    """Name of the import package, and of the entry that users select."""
    base: str
    """Prefix of its class names."""
    cls: str


def derive_names(name: str, kind: PluginKind, plugins: Plugins) -> PluginNames:
    """Derive all names from ``name``. Raise `ConfigError` if it is not a valid name for a plugin."""
    if not NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        raise ConfigError(
            f"NAME {name!r} is not valid: use a letter, then letters, digits and single - or _ between them, "
            f"{MAX_NAME_LENGTH} characters at most"
        )
    module = name.lower().replace("-", "_")
    if keyword.iskeyword(module):
        raise ConfigError(f"NAME {name!r}: {module!r} is a Python keyword; choose another name")
    if module in sys.stdlib_module_names or _is_installed(module):
        raise ConfigError(f"NAME {name!r}: a module {module!r} already exists; choose another name")
    if kind.registry is not None:
        _check_unregistered(module, getattr(plugins, kind.registry))
    base = "".join(part[0].upper() + part[1:] for part in re.split("[-_]", name))
    cls = base if base.endswith(kind.suffix) else base + kind.suffix
    if cls == kind.base:
        raise ConfigError(
            f"NAME {name!r}: its class {cls} would have the name of its base class; choose another name"
        )
    if cls.startswith("Test"):
        raise ConfigError(
            f"NAME {name!r}: pytest would collect its class {cls} as a test; choose another name"
        )
    return PluginNames(name, module, base, cls)


def _is_installed(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def _check_unregistered(module: str, registry: Registry[Any]) -> None:
    for each in registry:
        devices = each.entry.devices if isinstance(each.entry, BackendEntry) else ()
        if module in (each.entry.name, *devices):
            raise ConfigError(
                f"NAME: the {registry.kind} {module!r} is already registered by {each.distribution}; "
                "choose another name"
            )
