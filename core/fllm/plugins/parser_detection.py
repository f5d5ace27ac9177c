"""The choice of a parser for a model, as ``--tool-call-parser auto`` and ``--reasoning-parser auto`` make it.

The plugin of a parser declares the evidence: texts in the chat templates and tokens in the vocabulary of its
models. If no parser fits, or several do, none is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from fllm.plugins.registry import Entry, Registry

AUTO = "auto"
"""The name that stands for the parser that fits the model."""
NO_PARSER = "none"
"""The name that stands for no parser."""


class ModelTraits(Struct, frozen=True):
    """The properties of a model that parsers are chosen by."""

    templates: str
    """Sources of its chat templates."""
    has_token: Callable[[str], bool]
    """Returns whether a text is a single token of the vocabulary."""

    def has_marker(self, marker: str | tuple[str, ...]) -> bool:
        """Return whether the marker, or one of several, is in a template."""
        return any(each in self.templates for each in ((marker,) if isinstance(marker, str) else marker))


class ParserEntry(Entry, frozen=True):
    """A parser and the evidence that a model needs it; without evidence, `AUTO` never chooses the parser."""

    template_markers: tuple[str | tuple[str, ...], ...] = ()
    """Texts that must all be in the chat templates; of the texts in an inner tuple, one must be."""
    excluded_markers: tuple[str, ...] = ()
    """Texts that must not be in the chat templates."""
    required_tokens: tuple[str, ...] = ()
    """Texts that must all be single tokens of the vocabulary."""

    @property
    def evidence(self) -> frozenset[str | tuple[str, ...]]:
        """All required markers and tokens. A parser with more evidence than another one is more specific."""
        return frozenset((*self.template_markers, *self.required_tokens))

    def evidence_text(self) -> str:
        """Return the evidence for a log line."""
        markers = (each if isinstance(each, str) else each[0] for each in self.template_markers)
        return ", ".join(map(repr, (*markers, *self.required_tokens)))

    def fits(self, model: ModelTraits) -> bool:
        """Return whether the model has all required evidence and no excluded marker."""
        return (
            bool(self.evidence)
            and all(map(model.has_marker, self.template_markers))
            and all(map(model.has_token, self.required_tokens))
            and not model.has_marker(self.excluded_markers)
        )


def detect(registry: Registry[Any], model: ModelTraits) -> list[str]:
    """Return the names of the most specific parsers that fit; the choice is clear if there is only one."""
    fitting = [entry for entry in candidates(registry) if entry.fits(model)]
    best = [entry for entry in fitting if not any(entry.evidence < other.evidence for other in fitting)]
    return list(dict.fromkeys(entry.name for entry in best))


def candidates(registry: Registry[Any]) -> list[ParserEntry]:
    """Return the entries among which `detect` chooses."""
    entries = (registration.entry for registration in registry)
    return [entry for entry in entries if isinstance(entry, ParserEntry) and entry.evidence]
