"""Which parser fits a model: what ``--tool-call-parser auto`` and ``--reasoning-parser auto`` choose by.

Evidence belongs to the plugin that offers a parser: what the chat templates, and the vocabularies, of its
models have in them. Nothing is guessed: where no parser fits, or several do, none is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from fllm.plugins.registry import Entry, Registry

AUTO = "auto"
"""The name that asks for the parser that fits."""


class ModelTraits(Struct, frozen=True):
    """What a model is known by."""

    templates: str
    """The sources of its chat templates."""
    has_token: Callable[[str], bool]
    """Whether this text is a token of its own."""

    def shows(self, sign: str | tuple[str, ...]) -> bool:
        """Whether the sign, or one of these, stands in a template."""
        return any(each in self.templates for each in ((sign,) if isinstance(sign, str) else sign))


class ParserEntry(Entry, frozen=True):
    """A parser, with how to know its models; without evidence and tokens, it is never chosen for one."""

    template_markers: tuple[str | tuple[str, ...], ...] = ()
    """Each stands in the chat templates; of several in a tuple, one does."""
    excluded_markers: tuple[str, ...] = ()
    """None stands there."""
    required_tokens: tuple[str, ...] = ()
    """Each is a token of its own."""

    @property
    def signs(self) -> frozenset[str | tuple[str, ...]]:
        """All that must be there; one parser is more specific than another that it has all signs of."""
        return frozenset((*self.template_markers, *self.required_tokens))

    def fits(self, model: ModelTraits) -> bool:
        """Whether such a model writes what this parser reads."""
        return (
            bool(self.signs)
            and all(map(model.shows, self.template_markers))
            and all(map(model.has_token, self.required_tokens))
            and not model.shows(self.excluded_markers)
        )


def detect(registry: Registry[Any], model: ModelTraits) -> list[str]:
    """The names of the parsers that fit, but for those that are less specific. One is an answer."""
    fitting = [entry for entry in candidates(registry) if entry.fits(model)]
    best = [entry for entry in fitting if not any(entry.signs < other.signs for other in fitting)]
    return list(dict.fromkeys(entry.name for entry in best))


def candidates(registry: Registry[Any]) -> list[ParserEntry]:
    """The entries among which `detect` chooses."""
    entries = (registration.entry for registration in registry)
    return [entry for entry in entries if isinstance(entry, ParserEntry) and entry.signs]
