"""A prompt as the body of a completion request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from fllm import GenerateRequest, RequestError, SamplingParams
from fllm.tokenizer import Tokenizer
from fllm_backends.openai.constraints import structured_outputs
from fllm_backends.openai.server_dialect import Dialect

Tokens = Literal["token_ids", "logprobs", "text"]
"""Where an answer has its token ids: in a field of their own, as names of log-probabilities, or nowhere."""
ASK_IDS: dict[Tokens, dict[str, Any]] = {
    "token_ids": {"return_token_ids": True},
    "logprobs": {"return_tokens_as_token_ids": True, "logprobs": 0},
    "text": {},
}


class Manner(Struct, frozen=True, kw_only=True):
    """How a server is spoken to; found out when the backend starts."""

    model: str
    dialect: Dialect
    send: Literal["ids", "text"]
    receive: Tokens

    def body(self, prompt: GenerateRequest, tokenizer: Tokenizer) -> bytes:
        """The request; raises `RequestError` for what the server does not offer."""
        asked = {
            "model": self.model,
            "prompt": prompt.token_ids if self.send == "ids" else as_text(prompt.token_ids, tokenizer),
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.dialect.sampling(prompt.sampling, len(prompt.token_ids)),
            **ASK_IDS[self.receive],
            **self._logprobs(prompt.sampling),
        }
        if self.receive == "text" and self.dialect.gives_ids:
            asked["skip_special_tokens"] = False
        if prompt.constraint is not None:
            asked["structured_outputs"] = structured_outputs(prompt.constraint)
        return msgspec.json.encode(asked)

    def _logprobs(self, sampling: SamplingParams) -> dict[str, Any]:
        if sampling.logprobs is None and sampling.prompt_logprobs is None:
            return {}
        if self.receive == "text":
            raise RequestError(
                "`logprobs` is not supported: the server behind this one does not name tokens by their ids",
                param="logprobs",
                code="unsupported_parameter",
            )
        if sampling.prompt_logprobs is not None and not self.dialect.echoes:
            raise RequestError(
                "`echo` with `logprobs` is not supported: the server behind this one does not offer it",
                param="echo",
                code="unsupported_parameter",
            )
        wanted = max(sampling.logprobs or 0, sampling.prompt_logprobs or 0)
        echo = {} if sampling.prompt_logprobs is None else {"echo": True}
        return {"logprobs": wanted, "return_tokens_as_token_ids": True, **echo}


def as_text(token_ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The prompt as text, special tokens spelled out, but for what the server's tokenizer adds itself."""
    added = tokenizer.encode("", add_special_tokens=True)
    begins = added if list(token_ids[: len(added)]) == added else []
    return tokenizer.decode(token_ids[len(begins) :], skip_special_tokens=False)
