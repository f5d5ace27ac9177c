"""The tokens of a running server's model, asked for over HTTP."""

from __future__ import annotations

from typing import Any

from openai import OpenAI


def tokens_of(client: OpenAI, text: str) -> list[int]:
    """The ids of a text's tokens."""
    names: Any = {"return_tokens_as_token_ids": True}
    answer = client.completions.create(
        model="m", prompt=text, echo=True, max_tokens=0, logprobs=0, extra_body=names
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    return [int(name.removeprefix("token_id:")) for name in logprobs.tokens or ()]
