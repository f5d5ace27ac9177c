"""Which parser fits a model: what ``--tool-call-parser auto`` and ``--reasoning-parser auto`` choose by.

Evidence belongs to the plugin that offers a parser: what the chat templates, and the tokens, of its models
have in them. Nothing is guessed: where no parser fits, or several do, none is chosen.
"""

from __future__ import annotations

from collections.abc import Iterable

from fllm.registry import Entry, Registry


class ParserEntry(Entry, frozen=True):
    """A parser, with how to know its models."""

    evidence: tuple[str, ...] = ()
    """Each stands in the chat templates, or is one of the tokens; none: never chosen."""
    against: tuple[str, ...] = ()
    """None of these does."""

    def fits(self, traits: str) -> bool:
        """Whether a model with such `traits` writes what this parser reads."""
        return (
            bool(self.evidence)
            and all(sign in traits for sign in self.evidence)
            and not any(sign in traits for sign in self.against)
        )


def traits_of(templates: Iterable[str], tokens: Iterable[str]) -> str:
    """What a model is known by: its chat templates, then the tokens beside its vocabulary, one to a line."""
    return "\n".join([*templates, *tokens])


def detect(registry: Registry, traits: str) -> list[ParserEntry]:
    """The entries that fit, without those whose evidence is only a part of another's. One is an answer."""
    entries = [each.entry for each in registry if isinstance(each.entry, ParserEntry)]
    fitting = [entry for entry in entries if entry.fits(traits)]
    return [
        entry for entry in fitting if not any(set(entry.evidence) < set(other.evidence) for other in fitting)
    ]
