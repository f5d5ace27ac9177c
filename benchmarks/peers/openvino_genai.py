"""OpenVINO GenAI: its continuous batching, behind our small server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .environment import Environment, answers
from .peer import MODEL, Setup

if TYPE_CHECKING:
    from torch import Tensor

PACKAGES = "openvino-genai", "nncf", "aiohttp", "tokenizers", "jinja2"
ENGINE = "peers.openvino_engine"
SCHEDULER = {"max_num_seqs": 64, "max_num_batched_tokens": 512, "enable_prefix_caching": True}
"""Its best settings on two cores. Requests in a batch share each step with parts of long prompts."""
PRECISIONS = {
    "int8": "weights int8, one scale a row (NNCF)",
    "int4": "weights int4, one scale and zero point for 32 (NNCF), embedding and head int8",
    "file": "weights as its own GGUF reader rounds the file's",
}
ROUNDING: dict[str, dict[str, Any]] = {
    "int8": {"mode": "int8_asym", "group_size": 0},
    "int4": {"mode": "int4_asym", "group_size": 32},
    "file": {"mode": "", "group_size": 0},
}
"""What NNCF does; it works on the file's weights in float16."""


class OpenVinoGenAI:
    """OpenVINO GenAI with one model.

    ``int8`` is the default of NNCF and optimum, made from the file's weights in float16. ``file`` is exact
    for Q4_0. In Q4_1 and Q4_K, a block's minimum becomes a zero point: it is rounded to a multiple of the
    scale, which costs much quality.
    """

    kind = "openvino-genai"
    formats = ("int8", "int4", "file")

    def __init__(self, setup: Setup, form: str) -> None:
        self._setup, self._form = setup, form
        self._environment = Environment(setup.directory / "environments" / self.kind)

    @property
    def name(self) -> str:
        """Return the project and the format."""
        return f"{self.kind} {self._form}"

    @property
    def precision(self) -> str:
        """Describe the numbers that it computes with."""
        compute = "float32" if self._setup.avx2 else "bfloat16 where the processor has it, else float32"
        return f"{PRECISIONS[self._form]}; computes in {compute}; KV cache u8"

    def install(self) -> None:
        """Install it unless it is there. Raise `Unavailable`."""
        self._environment.install(PACKAGES)

    def version(self) -> str:
        """Return the version of what is installed."""
        return self._environment.version("openvino-genai")

    @cached_property
    def _models(self) -> Path:
        return self._setup.directory / "models" / self._setup.gguf.stem

    @property
    def _model(self) -> Path:
        return self._models / f"openvino-{self._form}"

    def prepare(self) -> None:
        """Make its model files unless they are there. Raise `Unavailable`."""
        from .weights import write_once, write_tokenizer

        write_once(self._models / "tokenizer", lambda target: write_tokenizer(self._setup.gguf, target))
        write_once(self._model, self._convert)

    def _convert(self, target: Path) -> None:
        from .weights import write_float16

        rounding = ROUNDING[self._form]
        with TemporaryDirectory(dir=self._setup.directory) as folder:
            file = Path(folder, "model.gguf")
            if rounding["mode"]:
                write_float16(self._setup.gguf, file)
            else:
                file.symlink_to(self._setup.gguf.resolve())
            self._environment.run(
                ENGINE, "convert", {"gguf": str(file), "directory": str(target), **rounding}
            )

    @property
    def _options(self) -> dict[str, Any]:
        properties = {"INFERENCE_NUM_THREADS": self._setup.threads, "PERFORMANCE_HINT": "LATENCY"}
        return {"model": str(self._model), "properties": properties}

    @property
    def _variables(self) -> dict[str, str]:
        return {"ONEDNN_MAX_CPU_ISA": "AVX2"} if self._setup.avx2 else {}

    def start(self, port: int) -> subprocess.Popen[bytes]:
        """Start its server."""
        options = {
            "tokenizer": str(self._models / "tokenizer"),
            "scheduler": SCHEDULER,
            "name": MODEL,
            "context": self._setup.context,
            "port": port,
        }
        log = self._setup.directory / f"{self.kind}.log"
        return self._environment.start(ENGINE, {**self._options, **options}, log, self._variables)

    def ready(self, port: int) -> bool:
        """Return whether its server answers requests."""
        return answers(port)

    def logits(self, text: str, windows: Sequence[Sequence[int]]) -> Iterator[Tensor]:  # noqa: ARG002
        """Return the log-probabilities of the scored positions of each window: [positions, vocabulary]."""
        directory = self._setup.directory
        return self._environment.logits(ENGINE, self._options, windows, directory, self._variables)
