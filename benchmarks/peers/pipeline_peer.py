"""A peer without a server of its own: ours, around its pipeline."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from .environment import Environment, answers
from .peer import MODEL, Setup

if TYPE_CHECKING:
    from torch import Tensor

SERVER_PACKAGES = "aiohttp", "tokenizers", "jinja2"


class PipelinePeer(ABC):
    """A library with a pipeline, whose module in `peers` has the commands ``serve`` and ``logits``."""

    kind: ClassVar[str]
    """Also its name on PyPI."""
    formats: ClassVar[tuple[str, ...]]
    engine: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]

    def __init__(self, setup: Setup, form: str) -> None:
        self.setup, self.form = setup, form
        self.environment = Environment(setup.directory / "environments" / self.kind)
        self.models = setup.directory / "models" / setup.gguf.stem
        """Directory of the files that are made from the GGUF file."""

    @property
    def name(self) -> str:
        """Return the project and the format."""
        return f"{self.kind} {self.form}"

    @property
    @abstractmethod
    def precision(self) -> str:
        """Describe the numbers that it computes with."""

    @property
    def model(self) -> Path:
        """Return the directory of its model."""
        return self.models / f"{self.kind}-{self.form}"

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return the options of its engine's commands."""

    @property
    def variables(self) -> dict[str, str]:
        """Return environment variables of its processes."""
        return {}

    @abstractmethod
    def convert(self, target: Path) -> None:
        """Make its model in a new directory. Raise `Unavailable`."""

    def install(self) -> None:
        """Install it unless it is there. Raise `Unavailable`."""
        self.environment.install((*self.packages, *SERVER_PACKAGES))

    def version(self) -> str:
        """Return the version of what is installed."""
        return self.environment.version(self.kind)

    def prepare(self) -> None:
        """Make its model files unless they are there. Raise `Unavailable`."""
        from .weights import write_once, write_tokenizer

        write_once(self.models / "tokenizer", lambda target: write_tokenizer(self.setup.gguf, target))
        write_once(self.model, self.convert)

    def start(self, port: int) -> subprocess.Popen[bytes]:
        """Start its server."""
        options = {
            "tokenizer": str(self.models / "tokenizer"),
            "name": MODEL,
            "context": self.setup.context,
            "port": port,
        }
        log = self.setup.directory / f"{self.kind}.log"
        return self.environment.start(self.engine, {**self.options, **options}, log, self.variables)

    def ready(self, port: int) -> bool:
        """Return whether its server answers requests."""
        return answers(port)

    def logits(self, text: str, windows: Sequence[Sequence[int]]) -> Iterator[Tensor]:  # noqa: ARG002
        """Return the log-probabilities of the scored positions of each window: [positions, vocabulary]."""
        directory = self.setup.directory
        return self.environment.logits(self.engine, self.options, windows, directory, self.variables)
