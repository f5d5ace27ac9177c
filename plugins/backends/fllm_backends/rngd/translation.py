"""Requests into the vendor's words, and its outputs into steps. Nothing of the vendor's is imported."""

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
from fllm.values import FinishReason

_SAME = (
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
"""Of the same name and meaning there."""
_ABSENT: Mapping[str, Any] = {
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logit_bias": {},
    "seed": None,
}
"""What the engine has not, and the values that ask for nothing."""
_FINISH: Mapping[str, FinishReason] = {"length": "length", "abort": "abort", "stop": "stop"}


class Logprob(Protocol):
    """The vendor's ``Logprob``."""

    @property
    def logprob(self) -> float: ...


class CompletionOutput(Protocol):
    """The vendor's ``CompletionOutput``, of the kind DELTA: what is new."""

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
    """The vendor's names of devices; ``None``: all that are free."""
    if not devices or any(device.index is None for device in devices):
        return None
    return ",".join(map(_device_name, devices))


def _device_name(device: Device) -> str:
    first, last = device.parts or (0, PES_PER_NPU - 1)
    whole = f"npu:{device.index}"
    if (first, last) == (0, PES_PER_NPU - 1):
        return whole
    return f"{whole}:{first}" if first == last else f"{whole}:{first}-{last}"


def sampling_params(sampling: SamplingParams) -> dict[str, Any]:
    """Arguments of the vendor's ``SamplingParams``; raises `RequestError` for what the engine has not."""
    for name, neutral in _ABSENT.items():
        if getattr(sampling, name) != neutral:
            raise RequestError(
                f"`{name}` is not supported: the engine of this device does not offer it",
                param=name,
                code="unsupported_parameter",
            )
    same = {name: getattr(sampling, name) for name in _SAME}
    # Text is made here: what the engine makes of the ids is not looked at.
    return {**same, "stop_token_ids": list(sampling.stop_token_ids) or None, "skip_special_tokens": False}


class Answer:
    """Takes the outputs of one request, each with what is new in it; gives steps."""

    def __init__(self, prompt: GenerateRequest, end_tokens: Sequence[int]) -> None:
        self._prompt = prompt
        sampling = prompt.sampling
        self._stop_tokens = {*sampling.stop_token_ids, *(() if sampling.ignore_eos else end_tokens)}
        self._begun = False

    def step(self, output: RequestOutput) -> EngineOutput:
        """What this output brings; raises `BackendError` for an end that nobody knows."""
        new = output.outputs[0]
        token_ids = list(new.token_ids)
        finish = self._finish(new.finish_reason)
        ends = finish == "stop" and token_ids and token_ids[-1] in self._stop_tokens
        begins, self._begun = not self._begun, True
        return EngineOutput(
            token_ids=token_ids,
            logprobs=self._logprobs(new, token_ids),
            finish_reason=finish,
            stop_token=token_ids[-1] if ends else None,
            cached_tokens=output.num_cached_tokens if begins else 0,
            prompt_logprobs=self._prompt_logprobs(output) if begins else None,
        )

    def _finish(self, reason: str | None) -> FinishReason | None:
        if reason is None:
            return None
        if reason not in _FINISH:
            raise BackendError(f"the engine ended the answer for the reason {reason!r}")
        return _FINISH[reason]

    def _logprobs(self, new: CompletionOutput, token_ids: Sequence[int]) -> list[TokenLogprob] | None:
        wanted = self._prompt.sampling.logprobs
        if wanted is None or not token_ids:
            return None
        return [_entry(each, of, wanted) for each, of in zip(token_ids, new.logprobs or (), strict=True)]

    def _prompt_logprobs(self, output: RequestOutput) -> list[TokenLogprob | None] | None:
        wanted = self._prompt.sampling.prompt_logprobs
        if wanted is None:
            return None
        pairs = zip(self._prompt.token_ids, output.prompt_logprobs or (), strict=True)
        return [None if of is None else _entry(each, of, wanted) for each, of in pairs]


def _entry(token_id: int, logprobs: Mapping[int, Logprob], wanted: int) -> TokenLogprob:
    ranked = sorted(((i, each.logprob) for i, each in logprobs.items()), key=lambda pair: -pair[1])
    return TokenLogprob(token_id, logprobs[token_id].logprob, tuple(ranked[:wanted]))
