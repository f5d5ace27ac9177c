"""A divided model computes what it computes on one rank, in the formats and families that are divided."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch
from support.model_families import save
from support.thread_ranks import run_ranks

from fllm.batching.runner import Row
from fllm.config import BackendConfig, Device, ModelImpl
from fllm.errors import ConfigError
from fllm.values import SamplingParams
from fllm_backends.torch.fused.target import targets
from fllm_backends.torch.model_selection import check_model
from fllm_backends.torch.options import TorchConfig, read_torch_config
from fllm_backends.torch.ranks import Ranks, part
from fllm_backends.torch.runner import TorchRunner
from fllm_backends.torch.transformers_lm import factory, loading

CPU = Device("cpu")
PROMPTS = [[(7 * i * i + 3 * i + 11) % 140 + 12 for i in range(21)], [17, 99, 140]]
GENERATED = 4
EXACT, ROUNDED = 0.0, 1e-4
PACKED = pytest.mark.skipif(not targets(), reason="the kernels need AVX2 or NEON")


def generate(config: TorchConfig, ranks: Ranks | None = None) -> tuple[list[int], list[float]]:
    """Return the greedy tokens of both prompts in one batch, and their log-probabilities."""
    runner = TorchRunner(config, CPU, len(PROMPTS), ranks)
    runner.load(lambda _: None)
    runner.allocate(16)
    texts, starts = [list(prompt) for prompt in PROMPTS], [0, 0]
    tokens: list[int] = []
    logprobs: list[float] = []
    for _ in range(GENERATED):
        results = runner.execute(
            [
                Row(
                    token_ids=text,
                    prompt_length=len(prompt),
                    start=start,
                    count=len(text) - start,
                    block_table=[2 * slot, 2 * slot + 1],
                    slot=slot,
                    sampling=SamplingParams(max_tokens=GENERATED, temperature=0.0, logprobs=0),
                    seed=0,
                    sample=True,
                )
                for slot, (text, prompt, start) in enumerate(zip(texts, PROMPTS, starts, strict=True))
            ]
        )
        starts = [len(text) for text in texts]
        for text, result in zip(texts, results, strict=True):
            assert result.token_id is not None
            assert result.logprob is not None
            text.append(result.token_id)
            tokens.append(result.token_id)
            logprobs.append(result.logprob.logprob)
    runner.close()
    return tokens, logprobs


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let only one thread at a time create a model: transformers changes torch's default type meanwhile."""
    lock = Lock()

    def locked(create: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with lock:
                return create(*arguments)

        return call

    monkeypatch.setattr(factory, "load_model", locked(loading.load_model))
    monkeypatch.setattr(loading, "_create", locked(loading._create))
    yield
    assert torch.get_default_dtype() == torch.float32


def config_of(
    directory: Path, impl: ModelImpl = "auto", quantization: str | None = None, size: int = 2
) -> TorchConfig:
    return read_torch_config(
        BackendConfig(
            model=str(directory),
            devices=(CPU,),
            model_impl=impl,
            quantization=quantization,
            max_model_len=64,
            tensor_parallel_size=size,
            options={"threads": "1"},
        )
    )


@pytest.mark.parametrize(
    ("family", "impl", "quantization", "size", "tolerance"),
    [
        pytest.param("qwen3", "native", None, 2, EXACT, marks=PACKED),
        pytest.param("qwen2-moe", "native", None, 2, EXACT, marks=PACKED, id="experts, shared ones too"),
        pytest.param("gemma3", "native", None, 4, EXACT, marks=PACKED, id="fewer key-value heads than ranks"),
        pytest.param("mixtral", "transformers", None, 2, EXACT, marks=PACKED),
        ("gemma2", "native", "none", 2, ROUNDED),
        ("olmo2", "native", "none", 2, ROUNDED),
        ("mixtral", "native", "none", 2, ROUNDED),
        ("phi3", "transformers", "none", 2, ROUNDED),
        ("deepseek-v2", "transformers", "none", 2, ROUNDED),
        ("qwen3-next", "transformers", "none", 2, ROUNDED),
    ],
)
def test_ranks_compute_what_one_does(
    family: str, impl: ModelImpl, quantization: str | None, size: int, tolerance: float, tmp_path: Path
) -> None:
    save(family, tmp_path)
    tokens, logprobs = generate(config_of(tmp_path, impl, quantization, size=1))
    config = config_of(tmp_path, impl, quantization, size)
    for own_tokens, own_logprobs in run_ranks(size, lambda ranks: generate(config, ranks)):
        assert own_tokens == tokens
        assert own_logprobs == pytest.approx(logprobs, abs=tolerance, rel=0)


@pytest.mark.parametrize(
    ("family", "impl", "size", "message"),
    [
        (
            "llama",
            "native",
            3,
            "--tensor-parallel-size 3: LlamaForCausalLM with 4 attention heads, 2 key-value",
        ),
        ("llama", "native", 8, "can be divided by 1, 2, 4"),
        ("llama", "transformers", 4, "--tensor-parallel-size 4: .* num_key_value_heads=2"),
        ("gpt-oss", "auto", 2, "transformers has no plan to divide GptOssForCausalLM"),
        ("gemma3n", "auto", 2, "Gemma3nForCausalLM can't be divided"),
    ],
)
def test_a_model_that_can_not_be_divided_is_refused_before_it_loads(
    family: str, impl: ModelImpl, size: int, message: str, tmp_path: Path
) -> None:
    save(family, tmp_path)
    with pytest.raises(ConfigError, match=message):
        check_model(tmp_path, config_of(tmp_path, impl, size=size))


@pytest.mark.parametrize("total", [1536, 1344, 192, 80, 7])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_are_all_of_a_dimension_and_as_equal_as_blocks_allow(total: int, size: int) -> None:
    parts = [part(total, rank, size) for rank in range(size)]
    assert [place for each in parts for place in each] == list(range(total))
    assert all(parts)
