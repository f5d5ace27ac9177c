"""Compare the server with llama.cpp's on the same GGUF files: tokens/s, time until ready, and peak memory.

::

    python benchmarks/gguf_formats.py --llama-cpp BIN --directory DIRECTORY

The model has the shape of Llama 3.2 1B and random weights. Only its vocabulary is smaller: it is that of the
embedded model, 49,152 tokens, so it has 1.07 billion weights. Random weights are read as fast as others.
``llama-quantize`` writes a file in each format to the directory, and a later run uses it again.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gguf
from random_gguf import Shapes, quantized, write_tensors

from fllm.model import locate

FORMATS = "Q4_K_M", "Q8_0", "Q4_0"
LAYERS, HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM = 16, 2048, 8192, 32, 8, 64
CONTEXT = 2048


def write_model(path: Path, context: int = CONTEXT) -> None:
    """Write a random Llama in float16, with the embedded model's tokenizer."""
    reader = gguf.GGUFReader(locate().location)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_block_count(LAYERS)
    writer.add_context_length(context)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(500000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    for field in reader.fields.values():
        if field.name.startswith("tokenizer."):
            item = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], item)
    write_tensors(writer, shapes(len(reader.fields["tokenizer.ggml.tokens"].data)))


def shapes(vocabulary: int) -> Shapes:
    """Return the shape of each tensor. The output head is the embedding."""
    keys = KV_HEADS * HEAD_DIM
    found: Shapes = {"token_embd.weight": (vocabulary, HIDDEN)}
    for layer in range(LAYERS):
        found |= {
            f"blk.{layer}.{name}.weight": shape
            for name, shape in {
                "attn_norm": (HIDDEN,),
                "attn_q": (HIDDEN, HIDDEN),
                "attn_k": (keys, HIDDEN),
                "attn_v": (keys, HIDDEN),
                "attn_output": (HIDDEN, HIDDEN),
                "ffn_norm": (HIDDEN,),
                "ffn_gate": (INNER, HIDDEN),
                "ffn_up": (INNER, HIDDEN),
                "ffn_down": (HIDDEN, INNER),
            }.items()
        }
    return found | {"output_norm.weight": (HIDDEN,)}


@contextmanager
def server(command: list[str | Path], port: int) -> Iterator[dict[str, float]]:
    """Run a server; yield its seconds until ready, and its peak memory until then and its memory, in MB."""
    start = time.monotonic()
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not _is_ready(port):
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} has ended with {process.returncode}")
            time.sleep(0.05)
        yield {"seconds until ready": round(time.monotonic() - start, 2), **memory(process.pid)}
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        return bool(urllib.request.urlopen(f"http://localhost:{port}/health", timeout=5).status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def memory(process: int) -> dict[str, int]:
    """Return the peak and the present memory of a process and its children, in MB.

    Mapped pages of files count, too, and shared pages once for each process.
    """
    names = {"peak MB": "VmHWM", "MB": "VmRSS", "of them mapped": "RssFile"}
    totals = dict.fromkeys(names, 0)
    for each in _family(process):
        status = Path(f"/proc/{each}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        for name, key in names.items():
            totals[name] += int(fields.get(key, "0").split()[0]) // 1024
    return totals


def _family(process: int) -> Iterator[int]:
    yield process
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _family(int(child))


def free_port() -> int:
    """Return a port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def bench(ours: int, theirs: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the measurements of both servers, which receive the same load in turn."""
    load = ["--concurrency", options.concurrency, "--requests", "8", "--tokens", str(options.tokens)]
    result = subprocess.run(
        [
            *(Path(sys.executable).parent / "furiosa-llm", "bench", "throughput"),
            *(f"ours=http://localhost:{ours}", "--against", f"llama.cpp=http://localhost:{theirs}"),
            *("--rounds", str(options.rounds), "--words", "32", "--json", *load),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    measured: list[dict[str, Any]] = json.loads(result.stdout)
    return measured


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-cpp", type=Path, required=True, help="directory of llama.cpp's programs")
    parser.add_argument("--directory", type=Path, required=True, help="directory of the models")
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--concurrency", default="1,8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    whole = options.directory / "random-F16.gguf"
    for form in options.formats:
        if not whole.exists():
            write_model(whole)
        path = quantized(options.llama_cpp / "llama-quantize", whole, form)
        print(f"{form}: {path.stat().st_size / 1e6:.0f} MB", flush=True)
        with ExitStack() as servers:
            ports = free_port(), free_port()
            commands: dict[str, list[str | Path]] = {
                "ours": [
                    *(Path(sys.executable).parent / "furiosa-llm", "serve", path),
                    *("--max-num-seqs", "8", "--backend-option", f"threads={options.threads}"),
                ],
                "llama.cpp": [
                    *(options.llama_cpp / "llama-server", "-m", path, "-t", str(options.threads)),
                    *("-np", "8", "-c", str(8 * CONTEXT), "--no-webui"),
                ],
            }
            for port, (name, command) in zip(ports, commands.items(), strict=True):
                print(f"  {name}: {servers.enter_context(server(command, port))}", flush=True)
            print(json.dumps(bench(*ports, options), indent=1), flush=True)


if __name__ == "__main__":
    main()
