"""Arguments of the vendor's engine, and translation of its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from fllm import (
    BackendConfig,
    BackendContext,
    BackendError,
    ConfigError,
    EngineOutput,
    GenerateRequest,
    RequestError,
    SamplingParams,
    TokenLogprob,
)
from fllm.model.devices import parse_devices
from fllm_backends.rngd.backend import rngd_backend
from fllm_backends.rngd.translation import OutputTranslator, device_names, sampling_arguments

END = 9


@dataclass
class Logprob:
    logprob: float


@dataclass
class Completion:
    token_ids: Sequence[int]
    logprobs: Sequence[Mapping[int, Logprob]] | None = None
    finish_reason: str | None = None


@dataclass
class Output:
    outputs: Sequence[Completion]
    prompt_logprobs: Sequence[Mapping[int, Logprob] | None] | None = None
    num_cached_tokens: int = 0


@dataclass
class Request:
    sampling: SamplingParams = field(default_factory=lambda: SamplingParams(max_tokens=8))

    def translated(self, *outputs: Output) -> list[EngineOutput]:
        translator = OutputTranslator(GenerateRequest("r", [4, 5], self.sampling), (END,))
        return [translator.translate(output) for output in outputs]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("npu:0", "npu:0"),
        ("npu:1:*", "npu:1"),
        ("npu:0:3", "npu:0:3"),
        ("npu:0:4-7, npu:2", "npu:0:4-7,npu:2"),
        ("npu", None),
    ],
)
def test_devices_are_named_as_the_vendor_names_them(text: str, names: str | None) -> None:
    assert device_names(parse_devices(text)) == names


def test_without_devices_all_that_are_free_are_used() -> None:
    assert device_names(()) is None


def test_sampling_is_handed_on_field_by_field() -> None:
    sampling = SamplingParams(
        max_tokens=5, min_tokens=2, temperature=0.5, top_k=3, stop_token_ids=(1,), logprobs=2
    )
    assert sampling_arguments(sampling) == {
        "max_tokens": 5,
        "min_tokens": 2,
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 3,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "ignore_eos": False,
        "logprobs": 2,
        "prompt_logprobs": None,
        "stop_token_ids": [1],
        "skip_special_tokens": False,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("presence_penalty", 0.5), ("frequency_penalty", 0.5), ("logit_bias", {1: 1.0}), ("seed", 0)],
)
def test_an_unsupported_field_is_rejected_by_name(name: str, value: Any) -> None:
    with pytest.raises(RequestError) as error:
        sampling_arguments(SamplingParams(max_tokens=1, **{name: value}))
    assert (error.value.param, error.value.code) == (name, "unsupported_parameter")


def test_outputs_are_translated() -> None:
    outputs = [
        Output([Completion([1, 2])], num_cached_tokens=1),
        Output([Completion([END], None, "stop")], num_cached_tokens=1),
    ]
    assert Request().translated(*outputs) == [
        EngineOutput(token_ids=[1, 2], cached_tokens=1),
        EngineOutput(token_ids=[END], finish_reason="stop", stop_token=END),
    ]


def test_an_end_token_that_is_ignored_stops_nothing() -> None:
    [step] = Request(SamplingParams(max_tokens=1, ignore_eos=True)).translated(
        Output([Completion([END], None, "length")])
    )
    assert step == EngineOutput(token_ids=[END], finish_reason="length")


def test_an_unknown_finish_reason_is_an_error() -> None:
    with pytest.raises(BackendError, match="'boredom'"):
        Request().translated(Output([Completion([1], None, "boredom")]))


def test_log_probabilities_are_ranked_and_cut() -> None:
    sampling = SamplingParams(max_tokens=1, logprobs=1, prompt_logprobs=1)
    of_prompt = [None, {5: Logprob(-2.0), 6: Logprob(-0.5)}]
    of_output = [{1: Logprob(-3.0), 2: Logprob(-0.25)}]
    first, second = Request(sampling).translated(
        Output([Completion([1], of_output)], of_prompt),
        Output([Completion([1], of_output, "length")], of_prompt),
    )
    assert first.prompt_logprobs == [None, TokenLogprob(5, -2.0, ((6, -0.5),))]
    assert first.logprobs == second.logprobs == [TokenLogprob(1, -3.0, ((2, -0.25),))]
    assert second.prompt_logprobs is None


@pytest.mark.parametrize(
    ("given", "flag"),
    [({"dtype": "float16"}, "--dtype"), ({"seed": 1}, "--seed"), ({"quantization": "int8"}, "--q")],
)
def test_what_is_compiled_can_not_be_changed(given: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        rngd_backend(BackendConfig(model="some/model", **given), BackendContext())
