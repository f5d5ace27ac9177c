"""Compare decoders of other families with a Llama of equal active parameters, on the CPU.

::

    python benchmarks/decoders.py
    python benchmarks/decoders.py --pairs gemma3 --threads 1
    python benchmarks/decoders.py --llama-cpp BIN --directory DIRECTORY

All have random weights, in the default mode of a CPU: 8 bits. It measures the engine, without a server: one
greedy token at the end of a context for one stream and for eight, and the prefill of a prompt. The two models
of a pair take turns. The figures are medians of the tokens/s, and the median of the ratio of each turn. The
share of the memory's bandwidth is that of the bytes of weights that a step reads, an expert once.

With ``--llama-cpp``, each family is also compared with llama.cpp on the same GGUF files, in turn. Those are
written to the directory, and a later run uses them again. llama.cpp's engine is measured, too
(``llama-batched-bench``): it does not choose tokens.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from random_gguf import quantized, write_model

from fllm.batching.runner import Row
from fllm.config import BackendConfig, Device
from fllm.values import SamplingParams
from fllm_backends.torch.fused import kernel_threads
from fllm_backends.torch.fused.decoder import FusedLM
from fllm_backends.torch.fused.experts import JOBS
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner

BLOCK_SIZE = 16
CONTEXT = 128
PROMPT = 512
BATCHES = (
    ("1 stream", 1, CONTEXT, 1, 1),
    ("8 streams", 8, CONTEXT, 1, 1),
    (f"prefill of {PROMPT}", 1, 0, PROMPT, 10),
)
"""Name, streams, first position and number of tokens of each, and what their turns are divided by."""
FORMATS = "Q8_0", "Q4_K_M"
TOKENS = 32
"""Tokens that llama.cpp generates in each stream."""
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
    """A model and a cache."""

    def __init__(self, model: Path, threads: int, load_format: str = "auto") -> None:
        options = {"threads": str(threads)}
        config = BackendConfig(model=str(model), load_format=load_format, options=options)
        self._runner = TorchRunner(read_torch_config(config), Device("cpu"), max_num_seqs=8)
        self._runner.load(lambda _: None)
        self._blocks = -(-PROMPT // BLOCK_SIZE)
        self._runner.allocate(BLOCK_SIZE)

    @classmethod
    def random(cls, configuration: dict[str, Any], threads: int) -> Engine:
        """Return a model with random weights."""
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "config.json").write_text(json.dumps(configuration))
            (Path(directory) / "tokenizer.json").write_text(
                json.dumps({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}})
            )
            return cls(Path(directory), threads, "dummy")

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

    def weight_bytes(self, streams: int) -> int:
        """Return the bytes of weights that a step reads: all except experts that no token chooses."""
        decoder = self._runner.decoder
        assert isinstance(decoder, FusedLM)
        experts = decoder._layers.experts
        matrices, _ = decoder._packed
        panels = [part.panels for matrix in matrices for part in matrix.parts]
        total = sum(each.nbytes for each in panels)
        if not experts.router.size:
            return total
        addresses = {*experts.gate_up.panels.ravel().tolist(), *experts.down.panels.ravel().tolist()}
        sparse = sum(each.nbytes for each in panels if each.ctypes.data in addresses)
        layers, rows, _ = experts.router.shape  # the last row belongs to shared experts
        unused = 1 - self._chosen_experts(streams) / (layers * (rows - 1))
        return total + experts.router.nbytes - int(sparse * unused)

    def _chosen_experts(self, streams: int) -> int:
        """Return how many experts of all layers compute a step."""
        counters: list[np.ndarray] = []
        create = kernel_threads.new_counters
        with mock.patch.object(
            kernel_threads, "new_counters", lambda phases: counters.append(create(phases)) or counters[-1]
        ):
            self.measure(streams, CONTEXT, 1)
        return sum(int(each[:, JOBS].sum()) for each in counters)


def read_bandwidth(threads: int) -> float:
    """Return the bytes/s that threads read from memory: the best of some sums over half a gigabyte."""
    torch.set_num_threads(threads)
    numbers = torch.ones(2**26, dtype=torch.int64)
    best = 0.0
    for _ in range(10):
        begun = time.perf_counter()
        numbers.sum()
        best = max(best, numbers.nbytes / (time.perf_counter() - begun))
    return best


def compare(pair: str, turns: int, threads: int, bandwidth: float) -> Iterator[str]:
    """Yield a row of the table for each kind of batch."""
    engines = [Engine.random(configuration, threads) for configuration in PAIRS[pair]]
    for name, streams, start, count, share in BATCHES:
        for engine in engines:
            engine.measure(streams, start, count)
        speeds = [[e.measure(streams, start, count) for e in engines] for _ in range(max(turns // share, 3))]
        medians = [statistics.median(kind) for kind in zip(*speeds, strict=True)]
        ratio = statistics.median(one / other for one, other in speeds)
        row = f"| {pair} | {name} | {medians[1]:.1f} | {medians[0]:.1f} | {ratio:.2f} |"
        for engine, median in reversed([*zip(engines, medians, strict=True)]):
            row += f" {reading(engine, streams, median, bandwidth) if count == 1 else ''} |"
        yield row


def reading(engine: Engine, streams: int, speed: float, bandwidth: float) -> str:
    """Return the megabytes of weights that a step reads, and their share of the bandwidth."""
    size = engine.weight_bytes(streams)
    return f"{size / 1e6:.0f}, {size * speed / streams / bandwidth:.0%}"


def compare_with_llama_cpp(
    pair: str, form: str, options: argparse.Namespace, bandwidth: float
) -> Iterator[str]:
    """Yield a row of the table for each kind of batch, on one GGUF file."""
    whole = options.directory / f"{pair}-F16.gguf"
    if not whole.exists():
        write_model(whole, PAIRS[pair][0])
    path = quantized(options.llama_cpp / "llama-quantize", whole, form)
    engine = Engine(path, options.threads)
    ours: list[list[float]] = [[] for _ in BATCHES]
    theirs: list[list[float]] = [[] for _ in BATCHES]
    for _ in range(options.rounds):
        for (_, streams, start, count, share), speeds in zip(BATCHES, ours, strict=True):
            engine.measure(streams, start, count)
            turns = max(options.turns // share // options.rounds, 1)
            speeds += [engine.measure(streams, start, count) for _ in range(turns)]
        for speed, speeds in zip(llama_cpp(path, options), theirs, strict=True):
            speeds.append(speed)
    for (name, streams, _, count, _), one, other in zip(BATCHES, ours, theirs, strict=True):
        speed, peer = statistics.median(one), statistics.median(other)
        read = reading(engine, streams, speed, bandwidth) if count == 1 else ""
        yield f"| {pair}, {form} | {name} | {peer:.1f} | {speed:.1f} | {speed / peer:.2f} | {read} |"


def llama_cpp(path: Path, options: argparse.Namespace) -> list[float]:
    """Return llama.cpp's tokens/s of each of the batches."""
    streams = max(streams for _, streams, *_ in BATCHES)
    load = ("-c", str(streams * 2 * CONTEXT), "-t", str(options.threads), "--output-format", "jsonl")
    found: list[dict[str, Any]] = []
    for sizes in ((CONTEXT, TOKENS, f"1,{streams}"), (PROMPT, 1, "1")):
        lengths = (str(part) for both in zip(("-npp", "-ntg", "-npl"), sizes, strict=True) for part in both)
        result = subprocess.run(
            [options.llama_cpp / "llama-batched-bench", "-m", path, *load, *lengths],
            check=True,
            capture_output=True,
            text=True,
        )
        found += [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    one, several, prefill = found
    return [one["speed_tg"], several["speed_tg"], prefill["speed_pp"]]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", nargs="+", default=[*PAIRS], choices=PAIRS)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3, help="turns of llama.cpp")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--llama-cpp", type=Path, help="directory of llama.cpp's programs")
    parser.add_argument("--directory", type=Path, default=Path(), help="directory of the GGUF files")
    parser.add_argument("--formats", nargs="+", default=FORMATS, help="formats of the GGUF files")
    options = parser.parse_args()
    torch.manual_seed(0)
    bandwidth = read_bandwidth(options.threads)
    print(f"{options.threads} threads read {bandwidth / 1e9:.1f} GB/s\n")
    print(
        "| family | batch | Llama, tokens/s | family, tokens/s | ratio | Llama reads MB | family reads MB |"
    )
    print("|---|---|---|---|---|---|---|")
    for pair in options.pairs:
        for line in compare(pair, options.turns, options.threads, bandwidth):
            print(line, flush=True)
        gc.collect()
    if options.llama_cpp:
        print("\n| file | batch | llama.cpp, tokens/s | ours, tokens/s | ratio | ours reads MB |")
        print("|---|---|---|---|---|---|")
        for pair in options.pairs:
            for form in options.formats:
                for line in compare_with_llama_cpp(pair, form, options, bandwidth):
                    print(line, flush=True)
                gc.collect()


if __name__ == "__main__":
    main()
