"""Tokenize text with a running server."""

from __future__ import annotations

from typing import Any

from openai import OpenAI


def tokens_of(client: OpenAI, text: str) -> list[int]:
    """Return the token ids of a text."""
    as_ids: Any = {"return_tokens_as_token_ids": True}
    response = client.completions.create(
        model="m", prompt=text, echo=True, max_tokens=0, logprobs=0, extra_body=as_ids
    )
    logprobs = response.choices[0].logprobs
    assert logprobs is not None
    return [int(name.removeprefix("token_id:")) for name in logprobs.tokens or ()]
