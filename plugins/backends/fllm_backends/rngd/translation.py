"""Convert requests to the vendor's arguments, and its outputs to ours, without importing its package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fllm import (
    BackendError,
    Device,
    EngineOutput,
    GenerateRequest,
    RequestError,
    SamplingParams,
    TokenLogprob,
)
from fllm.model.devices import PES_PER_NPU
from fllm.values import TOKEN_FILTERS, FinishReason

_SAME_FIELDS = (
    "max_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "ignore_eos",
    "logprobs",
    "prompt_logprobs",
)
"""Fields with the same name and meaning in the vendor's ``SamplingParams``."""
_UNSUPPORTED_FIELDS: Mapping[str, Any] = {
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logit_bias": {},
    "seed": None,
    "allowed_token_ids": (),
    "bad_words_token_ids": (),
    "reasoning_limit": None,
    "logprob_token_ids": (),
}
"""Fields that the engine does not support, with the values that have no effect."""
_FINISH_REASONS: Mapping[str, FinishReason] = {"length": "length", "abort": "abort", "stop": "stop"}


class Logprob(Protocol):
    """The vendor's ``Logprob``."""

    @property
    def logprob(self) -> float: ...


class CompletionOutput(Protocol):
    """The vendor's ``CompletionOutput``, of the kind DELTA: only the new tokens."""

    @property
    def token_ids(self) -> Sequence[int]: ...
    @property
    def logprobs(self) -> Sequence[Mapping[int, Logprob]] | None: ...
    @property
    def finish_reason(self) -> str | None: ...


class RequestOutput(Protocol):
    """The vendor's ``RequestOutput``."""

    @property
    def outputs(self) -> Sequence[CompletionOutput]: ...
    @property
    def prompt_logprobs(self) -> Sequence[Mapping[int, Logprob] | None] | None: ...
    @property
    def num_cached_tokens(self) -> int: ...


def device_names(devices: Sequence[Device]) -> str | None:
    """Return the vendor's names of devices; None stands for all free ones."""
    if not devices or any(device.index is None for device in devices):
        return None
    return ",".join(map(_device_name, devices))


def _device_name(device: Device) -> str:
    first, last = device.parts or (0, PES_PER_NPU - 1)
    name = f"npu:{device.index}"
    if (first, last) == (0, PES_PER_NPU - 1):
        return name
    return f"{name}:{first}" if first == last else f"{name}:{first}-{last}"


def sampling_arguments(sampling: SamplingParams) -> dict[str, Any]:
    """Return arguments of the vendor's ``SamplingParams``; raise `RequestError` for unsupported fields."""
    for name, neutral in _UNSUPPORTED_FIELDS.items():
        if getattr(sampling, name) != neutral:
            field = TOKEN_FILTERS.get(name, name)
            raise RequestError(
                f"`{field}` is not supported by the engine of this device",
                param=field,
                code="unsupported_parameter",
            )
    same = {name: getattr(sampling, name) for name in _SAME_FIELDS}
    # The engine's own text is not used: detokenization happens in the API.
    return {**same, "stop_token_ids": list(sampling.stop_token_ids) or None, "skip_special_tokens": False}


class OutputTranslator:
    """Converts the vendor's outputs of one request, which contain only new tokens, to `EngineOutput`."""

    def __init__(self, request: GenerateRequest, eos_token_ids: Sequence[int]) -> None:
        self._request = request
        sampling = request.sampling
        self._stop_tokens = {*sampling.stop_token_ids, *(() if sampling.ignore_eos else eos_token_ids)}
        self._first = True

    def translate(self, output: RequestOutput) -> EngineOutput:
        """Return the output in our format; raise `BackendError` for an unknown finish reason."""
        new = output.outputs[0]
        token_ids = list(new.token_ids)
        finish_reason = self._finish_reason(new.finish_reason)
        stopped = finish_reason == "stop" and token_ids and token_ids[-1] in self._stop_tokens
        first, self._first = self._first, False
        return EngineOutput(
            token_ids=token_ids,
            logprobs=self._logprobs(new, token_ids),
            finish_reason=finish_reason,
            stop_token=token_ids[-1] if stopped else None,
            cached_tokens=output.num_cached_tokens if first else 0,
            prompt_logprobs=self._prompt_logprobs(output) if first else None,
        )

    def _finish_reason(self, reason: str | None) -> FinishReason | None:
        if reason is None:
            return None
        if reason not in _FINISH_REASONS:
            raise BackendError(f"the engine ended a response with the unknown finish reason {reason!r}")
        return _FINISH_REASONS[reason]

    def _logprobs(self, new: CompletionOutput, token_ids: Sequence[int]) -> list[TokenLogprob] | None:
        count = self._request.sampling.logprobs
        if count is None or not token_ids:
            return None
        return [
            _token_logprob(token_id, logprobs, count)
            for token_id, logprobs in zip(token_ids, new.logprobs or (), strict=True)
        ]

    def _prompt_logprobs(self, output: RequestOutput) -> list[TokenLogprob | None] | None:
        count = self._request.sampling.prompt_logprobs
        if count is None:
            return None
        pairs = zip(self._request.token_ids, output.prompt_logprobs or (), strict=True)
        return [
            None if logprobs is None else _token_logprob(token_id, logprobs, count)
            for token_id, logprobs in pairs
        ]


def _token_logprob(token_id: int, logprobs: Mapping[int, Logprob], count: int) -> TokenLogprob:
    ranked = sorted(((i, each.logprob) for i, each in logprobs.items()), key=lambda pair: -pair[1])
    return TokenLogprob(token_id, logprobs[token_id].logprob, tuple(ranked[:count]))
