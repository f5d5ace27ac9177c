"""Build the body of a completion request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from fllm import GenerateRequest, RequestError, SamplingParams
from fllm.tokenizer import Tokenizer
from fllm_backends.openai.constraints import structured_outputs
from fllm_backends.openai.server_dialect import Dialect

TokenSource = Literal["token_ids", "logprobs", "text"]
"""Where a response contains token ids: in a separate field, as names in ``logprobs``, or nowhere."""
TOKEN_ID_FIELDS: dict[TokenSource, dict[str, Any]] = {
    "token_ids": {"return_token_ids": True},
    "logprobs": {"return_tokens_as_token_ids": True, "logprobs": 0},
    "text": {},
}


class UpstreamProfile(Struct, frozen=True, kw_only=True):
    """The model and the request format of the upstream server, probed when the backend starts."""

    model: str
    dialect: Dialect
    send: Literal["ids", "text"]
    receive: TokenSource

    def request_body(self, request: GenerateRequest, tokenizer: Tokenizer) -> bytes:
        """Return the body as JSON; raise `RequestError` for a field that the server does not support."""
        body = {
            "model": self.model,
            "prompt": request.token_ids if self.send == "ids" else prompt_text(request.token_ids, tokenizer),
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.dialect.sampling(request.sampling, len(request.token_ids)),
            **TOKEN_ID_FIELDS[self.receive],
            **self._logprobs(request.sampling),
        }
        if self.receive == "text" and self.dialect.returns_token_ids:
            body["skip_special_tokens"] = False
        if request.cache_salt and self.dialect.supports_cache_salt:
            body["cache_salt"] = request.cache_salt
        if request.constraint is not None:
            body["structured_outputs"] = structured_outputs(request.constraint)
        return msgspec.json.encode(body)

    def _logprobs(self, sampling: SamplingParams) -> dict[str, Any]:
        if sampling.logprobs is None and sampling.prompt_logprobs is None:
            return {}
        if self.receive == "text":
            raise RequestError(
                "`logprobs` is not supported: the upstream server does not return token ids",
                param="logprobs",
                code="unsupported_parameter",
            )
        if sampling.prompt_logprobs is not None and not self.dialect.supports_echo:
            raise RequestError(
                "`echo` with `logprobs` is not supported by the upstream server",
                param="echo",
                code="unsupported_parameter",
            )
        count = max(sampling.logprobs or 0, sampling.prompt_logprobs or 0)
        echo = {} if sampling.prompt_logprobs is None else {"echo": True}
        return {"logprobs": count, "return_tokens_as_token_ids": True, **echo}


def prompt_text(token_ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """Return the prompt as text with special tokens, except those that the server's tokenizer adds."""
    added = tokenizer.encode("", add_special_tokens=True)
    prefix = added if list(token_ids[: len(added)]) == added else []
    return tokenizer.decode(token_ids[len(prefix) :], skip_special_tokens=False)
