"""Tokenize inputs in pieces: texts, token ids, and pairs of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from msgspec import Struct

from fllm import ModelCard, PoolingCard, PoolingInput, RequestError, Serving
from fllm.concurrency.turn_executor import Pieces
from fllm.errors import ContextTooLong
from fllm.tokenizer import Tokenizer
from fllm_pooling.protocol import MAX_INPUTS, Inputs, PoolingFields

if TYPE_CHECKING:
    from tokenizers import Encoding

PIECE_CHARS = 64 * 1024
"""Characters of a long text that are tokenized at once, until it is clear that it is too long."""


TASKS = {
    "embed": "embeddings: use /v1/embeddings, /rerank or /score",
    "classify": "classes: use /classify, or /rerank and /score if it has only one",
}
"""What a model makes, and the endpoints for it."""


class Encoder(Struct, frozen=True, kw_only=True):
    """Turns texts into inputs of the model, within its limits or those of a request."""

    tokenizer: Tokenizer
    card: ModelCard
    max_tokens: int
    truncates: bool
    keeps_end: bool = False
    prompt: str = ""
    lowercase: bool = False

    def text(
        self, text: str, param: str, *, special: bool = True, prompt: str | None = None
    ) -> Pieces[PoolingInput]:
        """Return a text as input. Raise `ContextTooLong` if it is too long and is not truncated."""
        text = yield from self._prepare((self.prompt if prompt is None else prompt) + text)
        ids = self.tokenizer.encode_input(
            text, max_tokens=self._maximum(), keep_end=self.keeps_end, add_special_tokens=special
        ).token_ids
        yield len(ids)
        return self._checked(PoolingInput(ids), param)

    def first(self, text: str) -> Pieces[Encoding]:
        """Return the first text of pairs."""
        text = yield from self._prepare(text)
        encoding = self.tokenizer.encode_text(text)
        yield len(encoding)
        return encoding

    def pair(
        self, first: Encoding, second: str, param: str, max_second: int | None = None
    ) -> Pieces[PoolingInput]:
        """Return a pair of texts as input. The second has at most ``max_second`` tokens."""
        second = yield from self._prepare(second)
        encoded = self.tokenizer.encode_input(
            first, second, max_tokens=self._maximum(), max_second=max_second, keep_end=self.keeps_end
        )
        yield len(encoded.token_ids)
        return self._checked(encoded, param)

    def ids(self, ids: list[int], param: str) -> Pieces[PoolingInput]:
        """Return token ids as input. Raise `RequestError` if one does not exist."""
        size = self.card.runtime.get("vocab_size", self.tokenizer.vocab_size)
        if (highest := max(ids, default=0)) >= size:
            raise RequestError(
                f"`{param}`: token id {highest} does not exist; ids are 0 to {size - 1}", param=param
            )
        if self.truncates and len(ids) > self.max_tokens:
            ids = ids[-self.max_tokens :] if self.keeps_end else ids[: self.max_tokens]
        yield len(ids)
        return self._checked(PoolingInput(ids), param)

    def _maximum(self) -> int | None:
        return self.max_tokens if self.truncates else None

    def _prepare(self, text: str) -> Pieces[str]:
        """Return the text, or so much of the side that is kept that it is too long in any case."""
        if self.lowercase:
            text = text.lower()
        keeps_end = self.keeps_end and self.truncates
        tokens = 0
        for start in range(0, len(text) - PIECE_CHARS, PIECE_CHARS):
            end = len(text) - start
            piece = text[end - PIECE_CHARS : end] if keeps_end else text[start : start + PIECE_CHARS]
            count = len(self.tokenizer.encode(piece, add_special_tokens=False))
            yield count
            tokens += count
            if tokens > self.max_tokens * 5 // 4 + 16:  # a cut changes few tokens
                return text[end - PIECE_CHARS :] if keeps_end else text[: start + PIECE_CHARS]
        return text

    def _checked(self, given: PoolingInput, param: str) -> PoolingInput:
        length = len(given.token_ids)
        if not length:
            raise RequestError(f"`{param}` has no tokens", param=param)
        if length > self.card.max_model_len:
            raise ContextTooLong.for_prompt(
                self.card.max_model_len,
                f"the input has {length} tokens",
                param=param,
            )
        return given


def new_encoder(body: PoolingFields, server: Serving, *, prompt_name: str | None = None) -> Encoder:
    """Return the encoder for a request. Raise `RequestError` if it can't be honoured."""
    card, pooling = server.card, require_pooling(server)
    limit = body.truncate_prompt_tokens
    if limit == 0 or (limit is not None and limit > card.max_model_len):
        raise RequestError(
            f"`truncate_prompt_tokens` is {limit}; it must be -1, or 1 to {card.max_model_len}",
            param="truncate_prompt_tokens",
        )
    return Encoder(
        tokenizer=server.tokenizer,
        card=card,
        max_tokens=card.max_model_len if limit in (None, -1) else limit,
        truncates=limit is not None,
        keeps_end=body.truncation_side == "left",
        prompt=_prompt(pooling, prompt_name),
        lowercase=pooling.lowercase,
    )


def require_pooling(server: Serving) -> PoolingCard:
    """Return how the model pools. Raise `RequestError` if it generates text."""
    if server.card.pooling is None:
        raise RequestError(
            "this model generates text; start the server with --runner pooling to pool it, or with a model "
            "for embeddings, reranking or classification",
            param="model",
            code="unsupported_model",
        )
    return server.card.pooling


def require_task(pooling: PoolingCard, task: str) -> None:
    """Raise `RequestError` if the model does not do the task."""
    if pooling.task != task:
        raise RequestError(
            f"this model makes {TASKS[pooling.task]}",
            param="model",
            code="unsupported_model",
        )


def encode_inputs(inputs: Inputs, encoder: Encoder, *, special: bool) -> Pieces[list[PoolingInput]]:
    """Return the inputs of a request, whose field is ``input``, in OpenAI's four forms."""
    given, several = split_inputs(inputs)
    encoded: list[PoolingInput] = []
    for i, each in enumerate(given):
        param = f"input[{i}]" if several else "input"
        if isinstance(each, str):
            encoded.append((yield from encoder.text(each, param, special=special)))
        else:
            encoded.append((yield from encoder.ids(each, param)))
    return encoded


def split_inputs(inputs: Inputs) -> tuple[Sequence[str | list[int]], bool]:
    """Return the inputs as a list, and whether they were one."""
    if isinstance(inputs, str):
        return [inputs], False
    kinds = {type(each) for each in inputs}
    if kinds == {int}:
        return [cast("list[int]", inputs)], False
    if len(inputs) > MAX_INPUTS:
        raise RequestError(f"`input` has {len(inputs)} inputs; the maximum is {MAX_INPUTS}", param="input")
    if kinds in ({str}, {list}):
        return cast("list[str | list[int]]", inputs), True
    what = "mixes strings and token ids" if kinds else "is empty"
    raise RequestError(
        f"`input` {what}; send a string, a list of strings, a list of token ids, "
        "or a list of lists of token ids",
        param="input",
    )


def _prompt(pooling: PoolingCard, name: str | None) -> str:
    if name is not None and name not in pooling.prompts:
        known = ", ".join(map(repr, pooling.prompts)) or "none"
        raise RequestError(f"`prompt_name` {name!r} is unknown; the model has {known}", param="prompt_name")
    chosen = name or pooling.default_prompt_name
    return pooling.prompts[chosen] if chosen else ""
