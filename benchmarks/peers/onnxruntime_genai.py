"""ONNX Runtime GenAI: its engine, behind our small server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .peer import Unavailable
from .pipeline_peer import PipelinePeer

BLOCK = 32
"""Weights that share a scale, as in GGUF's formats."""


class OnnxRuntimeGenAI(PipelinePeer):
    """ONNX Runtime GenAI with one model, as its model builder rounds it.

    Its engine on a CPU has static batches: requests join between batches, and no prefix is kept.
    """

    kind = "onnxruntime-genai"
    formats = ("int8", "int4")
    engine = "peers.onnxruntime_engine"
    packages = ("onnxruntime-genai", "onnx", "onnx-ir", "tqdm")

    @property
    def precision(self) -> str:
        """Describe the numbers that it computes with."""
        weights = f"weights {self.form}, one scale for {BLOCK}, embedding float32"
        return f"{weights}; activations int8 in matrix products; KV cache float32"

    def install(self) -> None:
        """Install it unless it is there. Raise `Unavailable`, also where only AVX2 is allowed."""
        if self.setup.avx2:
            raise Unavailable("its kernels select instructions by cpuid; no option forbids AVX-512")
        super().install()

    def convert(self, target: Path) -> None:
        """Make its model in a new directory. Raise `Unavailable`.

        Its model builder needs torch and transformers: it runs in our environment, with its own packages
        before ours.
        """
        from .weights import write_hugging_face, write_once

        source = write_once(
            self.models / "float32", lambda directory: write_hugging_face(self.setup.gguf, directory)
        )
        packages = self.environment.packages()
        builder = packages / "onnxruntime_genai" / "models" / "builder.py"
        command = [sys.executable, builder, "-i", source, "-o", target, "-p", self.form, "-e", "cpu"]
        cache = ["-c", target.with_name("cache")]
        extra = ["--extra_options", "accuracy_level=4", f"block_size={BLOCK}"]
        result = subprocess.run(
            [*command, *cache, *extra],
            env={**os.environ, "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise Unavailable(f"its model builder: {result.stderr.strip().splitlines()[-1]}")

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of its engine's commands."""
        overlay = {
            "model": {"decoder": {"session_options": {"intra_op_num_threads": self.setup.threads}}},
            "engine": {"static_batching": {"max_batch_size": self.setup.streams}},
        }
        return {"model": str(self.model), "overlay": overlay}
