"""Indexes of plugins: JSON files that say which distribution has a plugin, and what it offers."""

from __future__ import annotations

import os
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Meta, Struct

from fllm.errors import ConfigError, PluginError
from fllm.files import read_bounded
from fllm.plugins.discovery import normalize_name

BUILT_IN = Path(__file__).with_name("plugin-index.json")
"""The index of the built-in plugins and of the examples."""
VERSION = 1
MAX_BYTES = 4 << 20
MAX_PLUGINS = 10_000
TIMEOUT_SECONDS = 20

_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
Name = Annotated[str, Meta(pattern=_NAME, max_length=100)]
Text = Annotated[str, Meta(max_length=300)]
Link = Annotated[str, Meta(pattern="^https?://", max_length=500)]
Digest = Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")]
Kind = Literal[
    "backend",
    "chat-template",
    "command",
    "drafter",
    "grammar",
    "metrics",
    "page-panel",
    "placement",
    "reasoning-parser",
    "routes",
    "tool-parser",
]


class Requires(Struct, frozen=True):
    """What a plugin needs of the server."""

    FLLM_API_VERSION: Annotated[int, Meta(ge=1)] = 1
    """Version of the plugin API."""
    extras: Annotated[list[Name], Meta(max_length=20)] = []
    """Extras of furiosa-llm-server."""


class IndexedPlugin(Struct, frozen=True, kw_only=True):
    """A plugin that can be found and installed by its name."""

    name: Name
    """Name of its entry point."""
    distribution: Name
    """What an installer installs."""
    summary: Annotated[str, Meta(min_length=1, max_length=300)]
    kinds: Annotated[list[Kind], Meta(min_length=1, max_length=10)]
    entries: Annotated[list[Text], Meta(max_length=200)] = []
    """Names that users select: of parsers, backends, commands; paths of routes."""
    homepage: Link | None = None
    requires: Requires = Requires()
    license: Text | None = None
    """SPDX expression."""
    source: Annotated[str, Meta(min_length=1, max_length=500)] | None = None
    """Path or URL to install from, relative to the index; ``None``: from the package index by name."""
    digests: dict[Name, Annotated[dict[Text, Digest], Meta(max_length=200)]] = {}
    """Digests of the files of releases: version, then file name, then ``sha256:...``."""


class PluginIndex(Struct, frozen=True):
    """An index of plugins."""

    version: Annotated[int, Meta(ge=1)]
    """Version of this format, 1."""
    plugins: Annotated[list[IndexedPlugin], Meta(max_length=MAX_PLUGINS)]


class Listed(Struct, frozen=True):
    """A plugin, and the index that it is from."""

    plugin: IndexedPlugin
    index: str

    @property
    def specification(self) -> str:
        """The requirement, path or URL to install. Raise `PluginError` if its source does not exist."""
        source = self.plugin.source
        if source is None:
            return self.plugin.distribution
        if _is_url(source) or _is_url(self.index):
            return urljoin(self.index, source) if _is_url(self.index) else source
        path = Path(os.path.normpath(Path(self.index).absolute().parent / source))
        if not path.exists():
            raise PluginError(
                f"{self.plugin.name}: {self.plugin.distribution} is not on a package index, and "
                f"{path} is not here: see {self.plugin.homepage or 'its home page'}"
            )
        return str(path)


def read_indexes(places: Sequence[str]) -> list[Listed]:
    """Return the plugins of the server's own index and of these files and URLs, in this order.

    Raise `ConfigError` if one can't be read, or is not an index.
    """
    return [
        Listed(plugin, place) for place in (str(BUILT_IN), *places) for plugin in read_index(place).plugins
    ]


def read_index(place: str) -> PluginIndex:
    """Return an index from a file or an ``http(s)`` URL. Raise `ConfigError`."""
    where = f"--index {place!r}"
    try:
        content = _download(place) if _is_url(place) else read_bounded(Path(place), MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigError(f"{where} can't be read: {reason}") from error
    try:
        index = msgspec.json.decode(content, type=PluginIndex)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{where} is not an index of plugins: {error} (see docs/plugin-index.md)"
        ) from error
    if index.version != VERSION:
        raise ConfigError(f"{where} has the format {index.version}; this server reads {VERSION}")
    for number, each in enumerate(index.plugins):
        if any(map(_has_control_character, _texts(msgspec.to_builtins(each)))):
            raise ConfigError(f"{where}: plugins[{number}] has a control character")
    return index


def find_in_indexes(name: str, listed: Sequence[Listed]) -> Listed | None:
    """Return the plugin with this name. Raise `ConfigError` if indexes name several distributions for it."""
    found = {
        normalize_name(each.plugin.distribution): each
        for each in reversed(listed)
        if normalize_name(name) == normalize_name(each.plugin.name)
    }
    if len(found) > 1:
        names = ", ".join(sorted(each.plugin.distribution for each in found.values()))
        raise ConfigError(f"{name!r} is a plugin of several distributions: {names}; name one of these")
    return next(iter(found.values()), None)


def find_distribution(name: str, listed: Sequence[Listed]) -> Listed | None:
    """Return the first plugin of a distribution."""
    key = normalize_name(name)
    return next((each for each in listed if normalize_name(each.plugin.distribution) == key), None)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of an index."""
    schema = msgspec.json.schema(PluginIndex)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Index of plugins", **schema}


def _is_url(place: str) -> bool:
    return urlsplit(place).scheme in ("http", "https")


def _download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        content: bytes = response.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
    return content


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for each in (*value.keys(), *value.values()):
                yield from _texts(each)
        case list():
            for each in value:
                yield from _texts(each)


def _has_control_character(text: str) -> bool:
    """Return whether a terminal might do something other than show the text (C0, C1, bidirectional)."""
    return any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in text)
