"""Names of the fields of `SamplingParams` in the requests of each kind of server, and which it supports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import fields

from fllm import RequestError, SamplingDefaults, SamplingParams
from fllm.values import TOKEN_FILTERS
from fllm_backends.openai.options import ServerKind


class Dialect(Struct, frozen=True, kw_only=True):
    """The request fields and abilities of one kind of server."""

    kind: ServerKind
    field_names: Mapping[str, str]
    """Fields of `SamplingParams` to fields of the request; unsupported fields are missing."""
    returns_token_ids: bool = False
    """Whether a request can enable token ids and special tokens in responses."""
    supports_echo: bool = False
    """Whether ``echo`` returns the log-probabilities of the prompt."""
    supports_cache_salt: bool = False
    """Whether only requests with the same ``cache_salt`` share the prefix cache."""
    penalty_window_field: str | None = None
    """Field for the number of last tokens that penalties count, if by default they do not count all."""

    def sampling(self, sampling: SamplingParams, prompt_tokens: int) -> dict[str, Any]:
        """Return the request fields, including defaults, because the server's defaults may differ.

        Raise `RequestError` for a field that the server does not support.
        """
        for name, neutral in _NEUTRAL.items():
            if name not in self.field_names and getattr(sampling, name) != neutral:
                field = TOKEN_FILTERS.get(name, name)
                raise RequestError(
                    f"`{field}` is not supported by the upstream server ({self.kind})",
                    param=field,
                    code="unsupported_parameter",
                )
        values = {theirs: getattr(sampling, ours) for ours, theirs in self.field_names.items()}
        if self.penalty_window_field is not None:
            values[self.penalty_window_field] = prompt_tokens + sampling.max_tokens
        return {name: value for name, value in values.items() if value not in (None, {}, ())}

    def defaults(self, defaults: SamplingDefaults) -> SamplingDefaults:
        """Return the model's recommended values without those of unsupported fields."""
        names = [name for name in defaults.__struct_fields__ if name in self.field_names]
        return SamplingDefaults(**{name: getattr(defaults, name) for name in names})


_REPORTS = ("logprobs", "prompt_logprobs")  # change what is reported, not what is sampled
_NEUTRAL = {
    field.name: {} if field.name == "logit_bias" else field.default
    for field in fields(SamplingParams)
    if not field.required and field.name not in _REPORTS
}


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_STANDARD = _same(
    "max_tokens", "temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "seed"
)
_COMMON = _same("min_tokens", "top_k", "min_p", "repetition_penalty", "stop_token_ids", "ignore_eos")

DIALECTS = {
    "vllm": Dialect(
        kind="vllm",
        field_names=_STANDARD | _COMMON | _same("allowed_token_ids"),
        returns_token_ids=True,
        supports_echo=True,
        supports_cache_salt=True,
    ),
    # The vendor's server accepts penalties, biases and seeds, but ignores them.
    "furiosa": Dialect(
        kind="furiosa",
        field_names=_same("max_tokens", "temperature", "top_p") | _COMMON,
        returns_token_ids=True,
    ),
    "llama.cpp": Dialect(
        kind="llama.cpp",
        field_names=_STANDARD
        | _same("top_k", "min_p", "ignore_eos")
        | {"repetition_penalty": "repeat_penalty"},
        penalty_window_field="repeat_last_n",
    ),
    "openai": Dialect(kind="openai", field_names=_STANDARD),
}

DIALECT_BY_OWNER = {
    "furiosa-llm": "vllm",
    "vllm": "vllm",
    "sglang": "vllm",
    "furiosa-ai": "furiosa",
    "llamacpp": "llama.cpp",
}
"""``owned_by`` in a server's list of models to its dialect; other servers get only the standard fields."""
