"""vLLM's build for CPUs, with its own server."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .environment import Environment, answers, start
from .peer import MODEL, Setup

if TYPE_CHECKING:
    from torch import Tensor

CACHE_GB = 4
"""Size of the KV cache in bfloat16."""
ENGINE = "peers.vllm_engine"
UNUSED = "torchvision", "torchaudio", "torchcodec"
"""What vLLM requires for images and sound. Their builds for CUDA do not load with torch's for CPUs."""


class VllmCpu:
    """vLLM with one model, from the file's weights in Hugging Face's layout.

    ``bfloat16`` is compiled by torch at the first start, which needs a C++ compiler and takes minutes.
    ``bfloat16-eager`` is not compiled.
    """

    kind = "vllm-cpu"
    formats = ("bfloat16", "bfloat16-eager", "float32", "float32-eager")

    def __init__(self, setup: Setup, form: str) -> None:
        self._setup, self._form = setup, form
        self._dtype, _, self._eager = form.partition("-")
        self._environment = Environment(setup.directory / "environments" / self.kind)
        self._model = setup.directory / "models" / setup.gguf.stem / "float32"

    @property
    def name(self) -> str:
        """Return the project and the format."""
        return f"{self.kind} {self._form}"

    @property
    def precision(self) -> str:
        """Describe the numbers that it computes with."""
        return f"weights, activations and KV cache {self._dtype}"

    def install(self) -> None:
        """Install it unless it is there. Raise `Unavailable`."""
        if self._environment.install((self.kind,), with_uv=True):
            self._name_distribution()
            self._environment.remove(UNUSED)

    def _name_distribution(self) -> None:
        """Copy the metadata under the name ``vllm``, with a version that contains ``cpu``.

        vLLM looks for a distribution of that name to find its version and its device.
        """
        packages, version = self._environment.packages(), self.version()
        if list(packages.glob("vllm-*.dist-info")):
            return
        own = packages / f"vllm_cpu-{version}.dist-info"
        copy = shutil.copytree(own, packages / f"vllm-{version}+cpu.dist-info")
        metadata = copy / "METADATA"
        text = metadata.read_text().replace("\nName: vllm-cpu\n", "\nName: vllm\n", 1)
        metadata.write_text(text.replace(f"\nVersion: {version}\n", f"\nVersion: {version}+cpu\n", 1))

    def version(self) -> str:
        """Return the version of what is installed."""
        return self._environment.version(self.kind)

    def prepare(self) -> None:
        """Make its model files unless they are there."""
        from .weights import write_hugging_face, write_once

        write_once(self._model, lambda target: write_hugging_face(self._setup.gguf, target))

    @property
    def _variables(self) -> dict[str, str]:
        variables = {
            "OMP_NUM_THREADS": str(self._setup.threads),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the cores are also those of other servers
            "VLLM_CPU_KVCACHE_SPACE": str(CACHE_GB),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        if self._setup.avx2:
            variables |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
        return variables

    def start(self, port: int) -> subprocess.Popen[bytes]:
        """Start its server, which caches prefixes by default."""
        command: list[str | Path] = [
            *(self._environment.directory / "bin" / "vllm", "serve", self._model),
            *("--served-model-name", MODEL, "--port", str(port), "--dtype", self._dtype),
            *("--max-model-len", str(self._setup.context), "--max-num-seqs", str(self._setup.streams)),
            *(["--enforce-eager"] if self._eager else []),
        ]
        return start(command, self._setup.directory / f"{self.kind}.log", self._variables)

    def ready(self, port: int) -> bool:
        """Return whether its server answers requests."""
        return answers(port)

    def logits(self, text: str, windows: Sequence[Sequence[int]]) -> Iterator[Tensor]:  # noqa: ARG002
        """Return the log-probabilities of the scored positions of each window: [positions, vocabulary]."""
        options = {"model": str(self._model), "dtype": self._dtype}
        variables = {**self._variables, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
        return self._environment.logits(ENGINE, options, windows, self._setup.directory, variables)
