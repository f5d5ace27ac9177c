"""Prompts of models that fill in the middle: the text before and the text after, between control tokens."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from msgspec import Struct

from fllm.chat.message_escaping import control_tokens
from fllm.control_tokens import ControlTokenEscaper
from fllm.errors import RequestError
from fllm.tokenizer import Tokenizer
from fllm_api.intake.tokenization import anchored


class _Markers(NamedTuple):
    """The control tokens of a family of models, and where the middle ends."""

    prefix: str
    suffix: str
    middle: str = ""
    ends: tuple[str, ...] = ()
    """Tokens besides the end of sequence that end the middle, if the tokenizer has them."""
    suffix_first: bool = False


_FAMILIES = (
    # Qwen2.5-Coder, Qwen3-Coder, CodeGemma, Granite 4
    _Markers(
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
        ends=("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|file_separator|>"),
    ),
    # StarCoder 1 and 2, StableCode, Granite Code and 3
    _Markers("<fim_prefix>", "<fim_suffix>", "<fim_middle>", ends=("<fim_pad>", "<file_sep>", "<filename>")),
    _Markers("<fim-prefix>", "<fim-suffix>", "<fim-middle>", ends=("<fim-pad>",)),  # SantaCoder
    _Markers("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", ends=("<|EOT|>",)),  # DeepSeek
    _Markers("▁<PRE>", "▁<SUF>", "▁<MID>", ends=("▁<EOT>",)),  # CodeLlama
    _Markers("<PRE>", "<SUF>", "<MID>", ends=("<EOT>",)),  # CodeLlama, in some conversions
    _Markers("[PREFIX]", "[SUFFIX]", ends=("[MIDDLE]",), suffix_first=True),  # Codestral
    _Markers("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM-4
    _Markers("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>", suffix_first=True),  # Seed-Coder
)


class FillInMiddle(Struct, frozen=True):
    """How a tokenizer writes a prompt for the middle of a text."""

    prefix: int
    suffix: int
    middle: int | None
    suffix_first: bool
    stop_token_ids: tuple[int, ...]
    """Tokens that end the middle, besides the end of sequence."""
    escaper: ControlTokenEscaper
    """Keeps control tokens out of the texts."""

    def prompt(self, prefix: list[int], suffix: list[int], special: list[int]) -> list[int]:
        """Return the tokens of a prompt, which begins with the ``special`` tokens of any text."""
        parts = [[self.prefix, *prefix], [self.suffix, *suffix]]
        if self.suffix_first:
            parts.reverse()
        return [*special, *parts[0], *parts[1], *([] if self.middle is None else [self.middle])]

    def suffix_text(self, suffix: str, tokenizer: Tokenizer) -> tuple[str, int]:
        """Return the text to tokenize for a suffix, and how many of its first tokens do not belong to it."""
        return anchored(self.escaper.escape(suffix), tokenizer)


def require_fill_in_middle(tokenizer: Tokenizer) -> FillInMiddle:
    """Return how the tokenizer writes such a prompt. Raise `RequestError` if it has no tokens for it."""
    found = _find(tokenizer)
    if found is None:
        raise RequestError(
            "`suffix` is not supported: the model's tokenizer has no tokens to fill in the middle of a text",
            param="suffix",
            code="unsupported_parameter",
        )
    return found


@lru_cache(maxsize=4)
def _find(tokenizer: Tokenizer) -> FillInMiddle | None:
    for family in _FAMILIES:
        names = [family.prefix, family.suffix, *filter(None, [family.middle])]
        ids = [tokenizer.token_to_id(name) for name in names]
        if None not in ids:
            ends = (tokenizer.token_to_id(name) for name in (*names, *family.ends))
            known = control_tokens(tokenizer)
            # Tokenizers that write a space as U+2581 also find such a token after a space.
            texts = {*known.special, *known.markers, *names, *family.ends}
            texts |= {text.lstrip("▁") for text in texts}
            prefix, suffix, *middle = (each for each in ids if each is not None)
            return FillInMiddle(
                prefix=prefix,
                suffix=suffix,
                middle=middle[0] if middle else None,
                suffix_first=family.suffix_first,
                stop_token_ids=tuple(each for each in ends if each is not None),
                escaper=ControlTokenEscaper(texts),
            )
    return None
