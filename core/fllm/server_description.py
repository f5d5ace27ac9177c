"""What routes of plugins can learn about the server: its version, its models, its plugins, and its keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from fllm.values import ModelCard


class PagePanel(Struct, frozen=True):
    """A panel that a plugin adds to the page at `/`."""

    name: str
    """Part of the address of the script: letters, digits, ``-`` and ``_``."""
    title: str
    """The title of its tab."""
    script: str | Path
    """An ES module that exports ``mount(element, page)``, or the file that has it."""

    def read(self) -> str:
        """Return the script. Raise `OSError` or `UnicodeDecodeError` if its file can't be read."""
        return self.script if isinstance(self.script, str) else self.script.read_text(encoding="utf-8")


class ModelDescription(Struct, frozen=True, kw_only=True):
    """A model of the server, whether or not it is loaded."""

    name: str
    """Its name in responses."""
    aliases: Sequence[str] = ()
    adapters: Sequence[str] = ()
    """Names of its LoRA adapters."""
    state: str = "loaded"
    """As in `ModelStats.state`."""
    card: ModelCard | None = None
    """``None`` until it has been loaded once."""
    tool_call_parser: str | None = None
    """Name of its parser, as it was last loaded."""
    reasoning_parser: str | None = None


class ServerDescription(Struct, frozen=True, kw_only=True):
    """The server, at the time of the call."""

    version: str = ""
    models: Sequence[ModelDescription] = ()
    """At least one."""
    loads_models: bool = False
    """Whether models are loaded on demand."""
    needs_key: bool = False
    """Whether requests need an API key."""
    has_admin_routes: bool = False
    """Whether it has the routes that need a key of ``--admin-key``."""
    plugins: Struct | None = None
    """What ``furiosa-llm plugins --json`` prints."""
    panels: Sequence[PagePanel] = ()
    """The panels of plugins."""
