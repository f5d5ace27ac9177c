"""Speculation changes no output of a real decoder, regardless of batching and sampling parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.generation import Generation, prompt
from support.tiny_models import save_model

from fllm.config import Speculation
from fllm.values import GenerateRequest
from fllm_backends.torch.fused.target import targets

NGRAM = Speculation(
    method="ngram", num_speculative_tokens=5, settings={"prompt_lookup_min": 1}, disable_by_batch_size=16
)
REPEATING = [3, 1, 4, 1, 5, 9, 2, 6] * 3
KERNELS = pytest.mark.skipif(not targets(), reason="the kernels need AVX2 or NEON")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("tiny")
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    save_model("Llama", directory, hidden_size=64, intermediate_size=96, **heads)
    return directory


REQUESTS = [
    prompt("greedy", REPEATING),
    prompt("short", [7, 8], max_tokens=25),
    prompt("sampled", REPEATING, temperature=0.6),
    prompt("nucleus", REPEATING, temperature=0.8, top_p=0.9, top_k=20),
    prompt("penalized", REPEATING, frequency_penalty=0.3, repetition_penalty=1.1),
    prompt("biased", REPEATING, logit_bias={3: 4.0, 1: 3.0}, min_tokens=20, stop_token_ids=(3,)),
    prompt("described", REPEATING, logprobs=2, max_tokens=12),
]


@pytest.mark.parametrize("quantization", ["none", pytest.param("int8", marks=KERNELS)])
@pytest.mark.parametrize(
    "config",
    [{}, {"max_num_batched_tokens": 11}, {"options": {"kv_cache_memory": "50KiB"}}],
    ids=["together", "in chunks", "preempted"],
)
def test_outputs_in_a_batch_are_those_without_speculation(
    tiny: Path, quantization: str, config: dict[str, Any]
) -> None:
    if "options" in config and quantization == "int8":  # whose cache holds float16
        config = {"options": {"kv_cache_memory": "25KiB"}}
    config = {"quantization": quantization, **config}
    plain, speculative = (Generation(tiny, REQUESTS, speculation, **config) for speculation in (None, NGRAM))
    assert speculative.tokens == plain.tokens
    assert speculative.status.accepted > 0
    assert speculative.status.accepted < speculative.status.drafted
    assert (speculative.status.preemptions > 0) == ("options" in config)
    assert speculative.status.kv_blocks_used == 0


@pytest.mark.parametrize("each", REQUESTS, ids=lambda each: each.request_id)
def test_an_output_alone_is_that_without_speculation(tiny: Path, each: GenerateRequest) -> None:
    plain, speculative = (Generation(tiny, [each], speculation) for speculation in (None, NGRAM))
    assert speculative.tokens == plain.tokens
    assert speculative.status.drafted > 0


def test_each_accepted_token_has_the_logprob_that_it_had_without_speculation(tiny: Path) -> None:
    asked = prompt("described", REPEATING, logprobs=2, logit_bias={3: 100.0})
    plain, speculative = (Generation(tiny, [asked], speculation) for speculation in (None, NGRAM))
    assert speculative.status.accepted > 0
    for ours, theirs in zip(speculative.logprobs["described"], plain.logprobs["described"], strict=True):
        assert ours.token_id == theirs.token_id
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)
        assert [token for token, _ in ours.top] == [token for token, _ in theirs.top]
