"""Scores of pairs of texts: of a cross-encoder, or the cosine of two embeddings."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from fllm import PoolingCard, PoolingInput, RequestError, Serving
from fllm.concurrency.turn_executor import Pieces
from fllm_pooling.protocol import PoolingFields, PoolingUsage
from fllm_pooling.tokens import new_encoder, require_pooling
from fllm_pooling.vectors import dot_products, rows, usage


class TextsToScore(Struct, frozen=True, kw_only=True):
    """Texts to compare: one with each other one, or each with the one at the same place."""

    first: Sequence[str]
    second: Sequence[str]
    params: tuple[str, str]
    """Names of the fields of the request."""
    max_second: int | None = None
    """Maximum number of tokens of a second text."""
    prompts: tuple[str, str] = ("", "")
    """Texts that precede the first and the second texts, for models that make embeddings."""

    def pairs(self) -> list[tuple[str, str]]:
        """Return all pairs. Raise `RequestError` if the numbers do not fit."""
        first, second = self.first, self.second
        if len(first) == 1:
            first = [*first] * len(second)
        if len(first) != len(second) or not first:
            one, other = self.params
            raise RequestError(
                f"`{one}` has {len(self.first)} texts and `{other}` {len(self.second)}; "
                "send one of the first, or as many of both",
                param=one,
            )
        return list(zip(first, second, strict=True))


async def score_pairs(
    body: PoolingFields, texts: TextsToScore, server: Serving
) -> tuple[list[float], PoolingUsage]:
    """Return the score of each pair. Raise `RequestError` if the model does not score."""
    pooling = require_pooling(server)
    pairs = texts.pairs()
    priority = body.priority or 0
    if pooling.task == "embed":
        inputs = await server.prepare(_encode_texts(body, texts, server))
        vectors = rows(await server.pool(inputs, activation=True, priority=priority))
        first, second = vectors[: len(texts.first)], vectors[len(texts.first) :]
        if len(first) == 1:
            return await dot_products(first[0], second), usage(inputs)
        return [(await dot_products(a, [b]))[0] for a, b in zip(first, second, strict=True)], usage(inputs)
    _require_one_class(pooling)
    inputs = await server.prepare(_encode_pairs(body, pairs, texts, server))
    output = await server.pool(inputs, activation=body.use_activation, priority=priority)
    return [vector[0] for vector in rows(output)], usage(inputs)


def _require_one_class(pooling: PoolingCard) -> None:
    if pooling.size != 1:
        raise RequestError(
            f"this model has {pooling.size} classes; only models with one class score pairs: use /classify",
            param="model",
            code="unsupported_model",
        )


def _encode_texts(body: PoolingFields, texts: TextsToScore, server: Serving) -> Pieces[list[PoolingInput]]:
    encoder = new_encoder(body, server)
    encoded: list[PoolingInput] = []
    for each, param, prompt in zip((texts.first, texts.second), texts.params, texts.prompts, strict=True):
        for i, text in enumerate(each):
            where = f"{param}[{i}]" if len(each) > 1 else param
            encoded.append((yield from encoder.text(text, where, prompt=prompt or None)))
    return encoded


def _encode_pairs(
    body: PoolingFields, pairs: Sequence[tuple[str, str]], texts: TextsToScore, server: Serving
) -> Pieces[list[PoolingInput]]:
    encoder = new_encoder(body, server)
    encoded: list[PoolingInput] = []
    query = (yield from encoder.first(texts.first[0])) if len(texts.first) == 1 else None
    for i, (text, second) in enumerate(pairs):
        where = f"{texts.params[1]}[{i}]" if len(pairs) > 1 else texts.params[1]
        first = (yield from encoder.first(text)) if query is None else query
        encoded.append((yield from encoder.pair(first, second, where, texts.max_second)))
    return encoded
