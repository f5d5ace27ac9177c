"""Compare decoders of other families with a Llama of equal active parameters, on the CPU.

::

    python benchmarks/decoders.py
    python benchmarks/decoders.py --pairs gemma3 --threads 1

All have random weights, in the default mode of a CPU: 8 bits. It measures the engine, without a server: one
greedy token at the end of a context for one stream and for eight, and the prefill of a prompt. The two models
of a pair take turns. The figures are medians of the tokens/s, and the median of the ratio of each turn.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fllm.batching.runner import Row
from fllm.config import BackendConfig, Device
from fllm.values import SamplingParams
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner

BLOCK_SIZE = 16
CONTEXT = 128
PROMPT = 512
SIZES: dict[str, Any] = {
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "num_hidden_layers": 16,
}
GEMMA3: dict[str, Any] = SIZES | {
    "vocab_size": 262144,
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "num_hidden_layers": 26,
}
MOE: dict[str, Any] = SIZES | {
    "vocab_size": 32000,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
LLAMA = {"architectures": ["LlamaForCausalLM"]}
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # 32 experts, of which 4 compute a token: 0.9B parameters, of which 0.18B are active
    "qwen3-moe": (
        MOE
        | {
            "architectures": ["Qwen3MoeForCausalLM"],
            "intermediate_size": 2048,
            "moe_intermediate_size": 512,
            "num_experts": 32,
            "num_experts_per_tok": 4,
            "norm_topk_prob": True,
        },
        MOE | LLAMA | {"intermediate_size": 4 * 512},
    ),
    # The configuration of google/gemma-3-1b-it
    "gemma3": (
        GEMMA3
        | {
            "architectures": ["Gemma3ForCausalLM"],
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "sliding_window": 512,
            "sliding_window_pattern": 6,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
            "hidden_activation": "gelu_pytorch_tanh",
        },
        GEMMA3 | LLAMA | {"num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64},
    ),
}


class Engine:
    """A model with random weights and a cache."""

    def __init__(self, configuration: dict[str, Any], threads: int | None) -> None:
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "config.json").write_text(json.dumps(configuration))
            (Path(directory) / "tokenizer.json").write_text(
                json.dumps({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}})
            )
            options = {"threads": str(threads)} if threads else {}
            config = BackendConfig(model=directory, load_format="dummy", options=options)
            self._runner = TorchRunner(read_torch_config(config), Device("cpu"), max_num_seqs=8)
            self._runner.load(lambda _: None)
        self._blocks = -(-PROMPT // BLOCK_SIZE)
        self._runner.allocate(BLOCK_SIZE)

    def measure(self, streams: int, start: int, count: int) -> float:
        """Return the tokens/s of one batch."""
        rows = [
            Row(
                token_ids=[(7 * stream + place) % 30000 for place in range(start + count)],
                prompt_length=start + count,
                start=start,
                count=count,
                block_table=[*range(stream * self._blocks, (stream + 1) * self._blocks)],
                sampling=SamplingParams(max_tokens=1, temperature=0.0),
                seed=0,
                sample=True,
            )
            for stream in range(streams)
        ]
        begun = time.perf_counter()
        self._runner.execute(rows)
        return streams * count / (time.perf_counter() - begun)


def compare(pair: str, turns: int, threads: int | None) -> Iterator[str]:
    """Yield a row of the table for each kind of batch."""
    engines = [Engine(configuration, threads) for configuration in PAIRS[pair]]
    for name, streams, start, count, share in (
        ("1 stream", 1, CONTEXT, 1, 1),
        ("8 streams", 8, CONTEXT, 1, 1),
        (f"prefill of {PROMPT}", 1, 0, PROMPT, 10),
    ):
        for engine in engines:
            engine.measure(streams, start, count)
        speeds = [[e.measure(streams, start, count) for e in engines] for _ in range(max(turns // share, 3))]
        ours, llama = (statistics.median(kind) for kind in zip(*speeds, strict=True))
        ratio = statistics.median(one / other for one, other in speeds)
        yield f"| {pair} | {name} | {llama:.1f} | {ours:.1f} | {ratio:.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", nargs="+", default=[*PAIRS], choices=PAIRS)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    print("| family | batch | Llama, tokens/s | family, tokens/s | ratio |\n|---|---|---|---|---|")
    for pair in arguments.pairs:
        for line in compare(pair, arguments.turns, arguments.threads):
            print(line, flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
