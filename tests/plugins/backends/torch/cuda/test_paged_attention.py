"""Classes of transformers on the Triton kernels, against torch's attention over the same cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="the kernels are written in Triton")

from support.model_families import build

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch.attention import AttentionBatch, KVCache, KVShape, Pattern
from fllm_backends.torch.cuda import paged_attention
from fllm_backends.torch.cuda.paged_attention import TritonAttention
from fllm_backends.torch.transformers_lm.decoder import TransformersLM
from fllm_backends.torch.transformers_lm.paged_attention import ATTENTION, register_attention

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BLOCK_SIZE = 4
PLAN = [((0, 20), (0, 3)), ((20, 1), (3, 2))]
"""Chunks of two sequences, batch by batch: (start, count) of each."""


def run(model: TransformersLM) -> torch.Tensor:
    """Return the logits of all batches; the blocks of the sequences lie scattered."""
    cache = KVCache(model.kv_shapes, 24, BLOCK_SIZE, torch.empty(0, dtype=model.cache_dtype, device=DEVICE))
    model.allocate_states(2)
    found = []
    for chunks in PLAN:
        rows = [
            Row(
                token_ids=[(7 * i + 3 * s) % 140 + 12 for i in range(start + count)],
                prompt_length=start + count, start=start, count=count, slot=s, block_table=range(s, 24, 2),
                sampling=SamplingParams(max_tokens=1), seed=0, sample=False,
            )
            for s, (start, count) in enumerate(chunks)
            if count
        ]  # fmt: skip
        ids = torch.tensor([token for row in rows for token in row.token_ids[row.start :]])
        with torch.inference_mode():
            batch = AttentionBatch(rows, BLOCK_SIZE, DEVICE)
            found.append(model.logits(model.forward(ids, batch, cache)))
    return torch.cat(found)


def served(name: str, **changes: Any) -> Any:
    register_attention()
    model = build(name, **changes).to(DEVICE)
    model.set_attn_implementation(ATTENTION)
    return model


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Return the windows of the layers that the kernels attend in, as they do."""
    windows: list[int | None] = []
    kernels: Callable[..., torch.Tensor] = paged_attention.attend

    def attend(*args: Any) -> torch.Tensor:
        windows.append(args[3])
        return kernels(*args)

    monkeypatch.setattr(paged_attention, "attend", attend)
    return windows


TWO = {"num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("name", "changes", "windows"),
    [
        ("exaone4", TWO | {"layer_types": ["sliding_attention", "full_attention"]}, [9, None] * 2),
        ("granite", {"num_hidden_layers": 1}, [None] * 2),  # with a scale of its own
        ("llama4", {}, [None] * 2),  # only one layer of four has no chunks
        ("qwen3.5", TWO | {"layer_types": ["linear_attention", "full_attention"]}, [None] * 4),  # with states
        ("gpt-oss", TWO | {"layer_types": ["sliding_attention", "full_attention"]}, []),  # with sinks
    ],
)
def test_logits_are_those_of_torch(
    name: str, changes: dict[str, Any], windows: list[int | None], attended: list[int | None]
) -> None:
    model = served(name, **changes)
    expected = run(TransformersLM(model))
    assert not attended
    found = run(TransformersLM(model, TritonAttention(DEVICE, torch.float32)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert attended == windows


@pytest.mark.parametrize(
    ("shape", "pattern", "dtype", "expected"),
    [
        (KVShape(2, 256, 256), Pattern(window=5, scale=0.3), torch.bfloat16, True),
        (KVShape(2, 256, 256), Pattern(), torch.float32, False),
        (KVShape(2, 512, 512), Pattern(), torch.bfloat16, False),
        (KVShape(2, 192, 128), Pattern(), torch.bfloat16, False),
        (KVShape(2, 64, 64), Pattern(softcap=30.0), torch.bfloat16, False),
    ],
)
def test_what_the_kernels_lack_is_left_to_torch(
    shape: KVShape, pattern: Pattern, dtype: torch.dtype, expected: bool
) -> None:
    kernels = TritonAttention(DEVICE, dtype)
    assert kernels.support([shape], [pattern]) is expected
    assert kernels.support([shape, KVShape(1, 16, 16)], [pattern, Pattern()]), "some of the layers suffice"
