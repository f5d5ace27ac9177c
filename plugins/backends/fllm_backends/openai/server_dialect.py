"""What servers call the fields of a `SamplingParams`, and which of them they have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import fields

from fllm import RequestError, SamplingDefaults, SamplingParams
from fllm_backends.openai.options import ServerKind


class Dialect(Struct, frozen=True, kw_only=True):
    """How one kind of server is spoken to."""

    kind: ServerKind
    names: Mapping[str, str]
    """Fields of `SamplingParams` to those of the request; one that is missing is not offered there."""
    gives_ids: bool = False
    """It may answer with token ids, and show special tokens, where asked to."""
    echoes: bool = False
    """``echo`` reports the log-probabilities of the prompt."""
    penalty_window: str | None = None
    """The field that says how many last tokens penalties count, where it is not all of them."""

    def sampling(self, sampling: SamplingParams, prompt_tokens: int) -> dict[str, Any]:
        """The request's fields, with all that has a value, since the server may have defaults of its own.

        Raises `RequestError` for a field that it does not offer.
        """
        for name, neutral in _NEUTRAL.items():
            if name not in self.names and getattr(sampling, name) != neutral:
                raise RequestError(
                    f"`{name}` is not supported: the server behind this one ({self.kind}) does not offer it",
                    param=name,
                    code="unsupported_parameter",
                )
        values = {there: getattr(sampling, here) for here, there in self.names.items()}
        if self.penalty_window is not None:
            values[self.penalty_window] = prompt_tokens + sampling.max_tokens
        return {name: value for name, value in values.items() if value not in (None, {}, ())}

    def defaults(self, defaults: SamplingDefaults) -> SamplingDefaults:
        """Those of the model's recommendations that can be obeyed."""
        known = {name: getattr(defaults, name) for name in defaults.__struct_fields__ if name in self.names}
        return SamplingDefaults(**known)


_REPORTS = ("logprobs", "prompt_logprobs")  # what is reported, not what is sampled
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
    "vllm": Dialect(kind="vllm", names=_STANDARD | _COMMON, gives_ids=True, echoes=True),
    # Its server accepts the standard's penalties, biases and seeds, and ignores them.
    "furiosa": Dialect(
        kind="furiosa", names=_same("max_tokens", "temperature", "top_p") | _COMMON, gives_ids=True
    ),
    "llama.cpp": Dialect(
        kind="llama.cpp",
        names=_STANDARD | _same("top_k", "min_p", "ignore_eos") | {"repetition_penalty": "repeat_penalty"},
        penalty_window="repeat_last_n",
    ),
    "openai": Dialect(kind="openai", names=_STANDARD),
}

OWNERS = {
    "furiosa-llm": "vllm",
    "vllm": "vllm",
    "sglang": "vllm",
    "furiosa-ai": "furiosa",
    "llamacpp": "llama.cpp",
}
"""``owned_by`` in a server's list of models, to its dialect; others get the standard fields only."""
