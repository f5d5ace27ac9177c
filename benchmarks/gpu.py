"""Compare the engine on a GPU with what the GPU can do, with transformers, and with the fp32 model.

::

    python benchmarks/gpu.py                          # Llama-3.1-8B's configuration, random weights
    python benchmarks/gpu.py --model smollm2-135m
    python benchmarks/gpu.py --quantization int8
    python benchmarks/gpu.py --parts speed,transformers
    python benchmarks/gpu.py --model tiny --smoke --parts speed,logits,greedy    # on any machine

It needs torch, transformers and the dependencies of `fllm`, but no server. It first measures the memory
bandwidth and the rate of dense bf16 products on the same device. Speeds are medians of three rounds, after
one that compiles and records.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "core"), str(ROOT / "plugins" / "backends")]

from fllm.batching.runner import Row  # noqa: E402
from fllm.config import BackendConfig, Device  # noqa: E402
from fllm.interfaces import BackendContext  # noqa: E402
from fllm.values import GenerateRequest, SamplingParams  # noqa: E402
from fllm_backends.checkpoints.architecture import Architecture, read_architecture  # noqa: E402
from fllm_backends.torch.attention import AttentionBatch, KVCache  # noqa: E402
from fllm_backends.torch.backend import torch_backend  # noqa: E402
from fllm_backends.torch.cuda.factory import cuda_decoder  # noqa: E402
from fllm_backends.torch.model import CausalLM, Decoder  # noqa: E402
from fllm_backends.torch.weights import RandomSource, load_weights  # noqa: E402

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": LLAMA3_ROPE,
    },
    "smollm2-135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
        "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 256,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
TRAINED = CONFIGURATIONS["tiny"] | {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4}

PARTS = ("speed", "transformers", "logits", "greedy")

Measurement = tuple[str, str, str]
"""What was measured, the result, and the goal."""


@dataclass(frozen=True)
class Load:
    """Sizes of all measurements."""

    context: int = 512
    sequences: int = 256
    prompt: int = 128
    tokens: int = 128
    prefills: int = 8
    prefill: int = 2048
    rounds: int = 3
    training_steps: int = 400
    greedy_prompts: int = 40
    greedy_tokens: int = 50
    read_bytes: int = 1 << 32
    dense: int = 8192


SMOKE = Load(
    context=32, sequences=3, prompt=8, tokens=4, prefills=2, prefill=32, rounds=1, training_steps=2,
    greedy_prompts=2, greedy_tokens=4, read_bytes=1 << 24, dense=128,
)  # fmt: skip


class Engine:
    """Our engine on one device, driven as the server drives it."""

    def __init__(self, directory: Path, device: torch.device, **config: Any) -> None:
        engine_device = Device(device.type, 0 if device.type == "cuda" else None)
        self._backend = torch_backend(
            BackendConfig(
                model=str(directory), devices=(engine_device,), enable_prefix_caching=False, **config
            ),
            BackendContext(),
        )
        self._count = 0

    async def __aenter__(self) -> Engine:
        await self._backend.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._backend.stop()

    async def generate(self, prompts: list[list[int]], tokens: int) -> list[list[tuple[int, float]]]:
        """Generate exactly ``tokens`` tokens after each prompt, greedily.

        Return each with its arrival time.
        """
        return await asyncio.gather(*(self._generate_one(prompt, tokens) for prompt in prompts))

    async def _generate_one(self, prompt: list[int], tokens: int) -> list[tuple[int, float]]:
        self._count += 1
        sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
        timed_tokens: list[tuple[int, float]] = []
        async for step in self._backend.generate(GenerateRequest(f"r{self._count}", prompt, sampling)):
            timed_tokens += [(token, time.perf_counter()) for token in step.token_ids]
        return timed_tokens


class Prompts:
    """Generates random prompts, no two alike."""

    def __init__(self, vocab_size: int) -> None:
        self._random = random.Random(0)
        self._vocab_size = vocab_size

    def __call__(self, count: int, length: int) -> list[list[int]]:
        return [[self._random.randrange(1, self._vocab_size) for _ in range(length)] for _ in range(count)]


async def speeds(engine: Engine, prompts: Prompts, load: Load) -> tuple[float, float, float]:
    """Return tokens/s: of one sequence after its context, of many together, and of prompts alone."""

    async def decode() -> float:
        [tokens] = await engine.generate(prompts(1, load.context), load.tokens)
        return (len(tokens) - 1) / (tokens[-1][1] - tokens[0][1])

    async def many() -> float:
        started_at = time.perf_counter()
        await engine.generate(prompts(load.sequences, load.prompt), load.tokens)
        return load.sequences * load.tokens / (time.perf_counter() - started_at)

    async def prefill() -> float:
        started_at = time.perf_counter()
        await engine.generate(prompts(load.prefills, load.prefill), 1)
        return load.prefills * load.prefill / (time.perf_counter() - started_at)

    medians = []
    for measure in (decode, many, prefill):
        await measure()  # compiles and records
        medians.append(statistics.median([await measure() for _ in range(load.rounds)]))
    return medians[0], medians[1], medians[2]


def transformers_speed(directory: Path, device: torch.device, prompts: Prompts, load: Load) -> float:
    """Return tokens/s of transformers' continuous batching, under the load of many sequences."""
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    with device:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=torch.bfloat16)
    generation_config = GenerationConfig(
        max_new_tokens=load.tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    rates = []
    for _ in range(load.rounds + 1):
        batch = prompts(load.sequences, load.prompt)
        started_at = time.perf_counter()
        outputs = model.eval().generate_batch(
            batch, generation_config=generation_config, persistent_manager=True
        )
        seconds = time.perf_counter() - started_at
        rates.append(sum(len(output.generated_tokens) for output in outputs.values()) / seconds)
    model.destroy_cached_continuous_batching_manager()
    return statistics.median(rates[1:])


def best_seconds(function: Callable[[], object], device: torch.device, rounds: int = 10) -> float:
    """Return the duration of the fastest of several runs, in seconds."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    times = []
    for _ in range(rounds + 1):
        wait()
        started_at = time.perf_counter()
        function()
        wait()
        times.append(time.perf_counter() - started_at)
    return min(times[1:])


def read_rate(device: torch.device, load: Load) -> float:
    """Return the memory bandwidth in bytes/s, measured in the better of two ways."""
    data = torch.ones(load.read_bytes // 2, dtype=torch.bfloat16, device=device).view(-1, 4096)
    vector = torch.ones(4096, dtype=torch.bfloat16, device=device)
    ways = (lambda: data.sum(dtype=torch.float32), lambda: data @ vector)
    return load.read_bytes / min(best_seconds(way, device) for way in ways)


def dense_rate(device: torch.device, load: Load) -> float:
    """Return the floating-point operations/s of a large bf16 product."""
    a = torch.randn(load.dense, load.dense, device=device).bfloat16()
    return 2 * load.dense**3 / best_seconds(lambda: a @ a, device)


def layer_parameters(a: Architecture) -> int:
    """Return the number of weights in the matrices of all layers."""
    attention = a.hidden_size * a.head_dim * 2 * (a.heads + a.kv_heads)
    return len(a.layers) * (attention + 3 * a.hidden_size * a.intermediate_size)


def decode_bytes(a: Architecture, quantization: str) -> int:
    """Return the bytes that are read for one token: all layers and the head."""
    return (layer_parameters(a) + a.vocab_size * a.hidden_size) * (2 if quantization == "none" else 1)


def prefill_operations(a: Architecture, length: int) -> float:
    """Return the operations for one token of a prompt: the matrix products, and causal attention."""
    return 2 * layer_parameters(a) + 2 * len(a.layers) * a.heads * a.head_dim * length


class CopiedSource:
    """Copies another source's tensors to a device and a dtype: the same random numbers everywhere."""

    def __init__(self, source: RandomSource, device: torch.device, dtype: torch.dtype) -> None:
        self._source, self._device, self._dtype = source, device, dtype

    def __contains__(self, name: str) -> bool:
        return name in self._source

    def stack(self, names: list[str], *shapes: tuple[int, ...]) -> torch.Tensor:
        return self._source.stack(names, *shapes).to(self._device, self._dtype)

    matrix = stack


def logits_of(
    a: Architecture, ids: list[int], device: torch.device, dtype: torch.dtype, quantization: str
) -> torch.Tensor:
    """Return the logits at every position of a text: half of it as a prompt, half token by token."""
    random_source = RandomSource(0, torch.device("cpu"), torch.float32)
    weights = load_weights(a, CopiedSource(random_source, device, dtype), lambda _: None)
    model: Decoder = CausalLM(a, weights)
    if device.type == "cuda":
        model = cuda_decoder(a, weights, quantization=quantization, max_rows=1, max_positions=len(ids))
    blocks = -(-len(ids) // 16)
    cache = KVCache(model.kv_shapes, blocks, 16, torch.empty(0, dtype=dtype, device=device))
    half, logits = len(ids) // 2, []
    for start, count in [(0, half), *((at, 1) for at in range(half, len(ids)))]:
        row = Row(
            token_ids=ids, prompt_length=len(ids), start=start, count=count, block_table=range(blocks),
            sampling=SamplingParams(max_tokens=1), seed=0, sample=False,
        )  # fmt: skip
        with torch.inference_mode():
            new = torch.tensor(ids[start : start + count], device=device)
            hidden = model.forward(new, AttentionBatch([row], 16, device), cache)
            logits.append(model.logits(hidden).cpu())
    return torch.cat(logits)


def logits_error(a: Architecture, device: torch.device, prompts: Prompts, quantization: str) -> float:
    """Return the norm of the difference from the fp32 model on the CPU, over that model's norm."""
    [ids] = prompts(1, 64)
    exact = logits_of(a, ids, torch.device("cpu"), torch.float32, "none")
    ours = logits_of(a, ids, device, torch.bfloat16, quantization)
    return float((ours - exact).norm() / exact.norm())


def train(directory: Path, device: torch.device, load: Load) -> list[list[int]]:
    """Train a small model on the bytes of our documentation and save it; return prompts from that text."""
    from transformers import LlamaConfig, LlamaForCausalLM

    data = b"".join(path.read_bytes() for path in sorted(ROOT.glob("docs/*.md")))
    text = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**TRAINED)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(load.training_steps):
        starts = torch.randint(len(text) - 129, (32,)).tolist()
        batch = torch.stack([text[start : start + 128] for start in starts]).to(device)
        model(batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(directory)
    starts = torch.randint(len(text) - 64, (load.greedy_prompts,)).tolist()
    return [text[start : start + 64].tolist() for start in starts]


async def greedy(
    directory: Path, device: torch.device, prompts: list[list[int]], load: Load, **config: Any
) -> Any:
    """Return the tokens after each prompt."""
    async with Engine(directory, device, **config) as engine:
        outputs = await engine.generate(prompts, load.greedy_tokens)
    return [[token for token, _ in tokens] for tokens in outputs]


def greedy_agreement(directory: Path, device: torch.device, load: Load, quantization: str) -> float:
    """Return the share of prompts for which the device generates the tokens of the fp32 model on the CPU."""
    prompts = train(directory, device, load)
    exact = greedy(directory, torch.device("cpu"), prompts, load, dtype="float32", quantization="none")
    ours = greedy(directory, device, prompts, load, dtype="bfloat16", quantization=quantization)
    pairs = zip(asyncio.run(exact), asyncio.run(ours), strict=True)
    return statistics.mean(one == other for one, other in pairs)


class Benchmark:
    """The measurements, part by part, in the order of the command line."""

    def __init__(self, directory: Path, device: torch.device, quantization: str, load: Load) -> None:
        self._directory, self._device, self._quantization, self._load = directory, device, quantization, load
        self._architecture = read_architecture(directory)
        self._prompts = Prompts(self._architecture.vocab_size)

    def speed(self) -> Iterator[Measurement]:
        """Measure our speed, compared with what the device can do."""
        a, load = self._architecture, self._load
        reads, dense = read_rate(self._device, load), dense_rate(self._device, load)
        self._free()
        decode, many, prefill = asyncio.run(self._speeds())
        bound = reads / decode_bytes(a, self._quantization)
        share = prefill * prefill_operations(a, load.prefill) / dense
        yield "memory is read at", f"{reads / 1e12:.2f} TB/s", ""
        yield "dense bf16 products", f"{dense / 1e12:.0f} TFLOP/s", ""
        what = f"decode, 1 sequence, context {load.context}"
        yield what, f"{decode:.0f} tok/s, {decode / bound:.0%} of {bound:.0f}", "80 %"
        what = f"{load.sequences} sequences, {load.prompt} in / {load.tokens} out"
        yield what, f"{many:.0f} tok/s", "12,000 tok/s"
        what = f"prefill, {load.prefills} x {load.prefill} tokens"
        yield what, f"{prefill:.0f} tok/s, {share:.0%} of the dense rate", "50 %"

    def transformers(self) -> Iterator[Measurement]:
        """Measure transformers' continuous batching, under the load of many sequences."""
        rate = transformers_speed(self._directory, self._device, self._prompts, self._load)
        yield "transformers, the same sequences", f"{rate:.0f} tok/s", "a third of ours"

    def logits(self) -> Iterator[Measurement]:
        """Compare the logits with those of the fp32 model on the CPU."""
        error = logits_error(self._architecture, self._device, self._prompts, self._quantization)
        yield "logits, relative to fp32 on the CPU", f"{error:.1e}", "2e-2"

    def greedy(self) -> Iterator[Measurement]:
        """Compare the greedy tokens of a trained model with those of the fp32 model on the CPU."""
        with tempfile.TemporaryDirectory() as trained:
            share = greedy_agreement(Path(trained), self._device, self._load, self._quantization)
        yield f"prompts with the same {self._load.greedy_tokens} greedy tokens", f"{share:.0%}", "95 %"

    async def _speeds(self) -> tuple[float, float, float]:
        load = self._load
        config = {"load_format": "dummy", "dtype": "bfloat16", "quantization": self._quantization}
        length = max(load.context + load.tokens, load.prompt + load.tokens, load.prefill + 1)
        limits = {"max_num_seqs": load.sequences, "max_model_len": length}
        async with Engine(self._directory, self._device, **config, **limits) as engine:
            return await speeds(engine, self._prompts, load)

    def _free(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def run(self, parts: list[str]) -> Iterator[Measurement]:
        """Yield the measurements of some parts; memory of the previous part is released before each."""
        measurements = {
            "speed": self.speed,
            "transformers": self.transformers,
            "logits": self.logits,
            "greedy": self.greedy,
        }
        for part in parts:
            self._free()
            yield from measurements[part]()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=CONFIGURATIONS, default="llama-3.1-8b")
    parser.add_argument("--quantization", choices=("int8", "fp8"), help="of the weights, on a GPU")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="a tiny load, to try this script")
    arguments = parser.parse_args()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    quantization = arguments.quantization if device.type == "cuda" else None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    weights = quantization or "bf16"
    print(f"{date.today()}, {name}, torch {torch.__version__}: {arguments.model}, {weights}\n")
    print("| | measured | at least |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        config |= CONFIGURATIONS[arguments.model]
        (Path(directory) / "config.json").write_text(json.dumps(config))
        Tokenizer(models.WordLevel({"": 0}, "")).save(str(Path(directory) / "tokenizer.json"))
        load = SMOKE if arguments.smoke else Load()
        bench = Benchmark(Path(directory), device, quantization or "none", load)
        for line in bench.run(arguments.parts.split(",")):
            print("| " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    main()
