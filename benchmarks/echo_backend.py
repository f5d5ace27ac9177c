"""A backend that costs nothing, to measure everything else: ``--plugin echo_backend.py --backend echo``.

Each turn of the event loop gives every sequence one step of ``tokens_per_step`` prepared tokens
(``--backend-option``, 1 by default): reasoning, text, and a tool call at the end. The tokenizer is that of
the model, the embedded one by default; its weights are never read.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Iterable
from functools import cache
from itertools import cycle, islice
from pathlib import Path

import msgspec

import fllm
from fllm.tokenizer import Tokenizer
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.tokenizer import tokenizer, tokenizer_config

OPEN = "<think>\n"
PROSE = (
    " The river runs past the old bridge, and every summer the children of the village come down to it"
    " with their nets. They stay until the light goes; then somebody calls, and they walk home by the"
    " narrow path between the gardens."
)
CLOSE = "\n</think>\n\n"
CALL = '\n\n{"name": "get_weather", "parameters": {"city": "Tokyo"}}'


class EchoBackend:
    """Responds to any prompt with exactly ``max_tokens`` tokens."""

    def __init__(self, config: fllm.BackendConfig, context: fllm.BackendContext) -> None:  # noqa: ARG002
        self._per_step = int(config.options.get("tokens_per_step", 1))
        self._directory = Path(config.model)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._steps = cache(self._prepare)

    async def start(self) -> fllm.ModelCard:
        if self._directory.is_file():
            self._temporary = tempfile.TemporaryDirectory(prefix="echo-")
            self._directory = write_tokenizer(self._directory, Path(self._temporary.name))
        self._tokenizer = Tokenizer.load(self._directory)
        return fllm.ModelCard(tokenizer=str(self._directory), max_model_len=8192)

    async def generate(self, request: fllm.GenerateRequest) -> AsyncGenerator[fllm.EngineOutput]:
        for step in self._steps(request.sampling.max_tokens):
            await asyncio.sleep(0)
            yield step

    async def status(self) -> fllm.EngineStats:
        return fllm.EngineStats()

    async def stop(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    def _prepare(self, count: int) -> list[fllm.EngineOutput]:
        ids = self._ids(count)
        *parts, last = (ids[i : i + self._per_step] for i in range(0, count, self._per_step))
        return [
            *(fllm.EngineOutput(token_ids=part) for part in parts),
            fllm.EngineOutput(token_ids=last, finish_reason="stop"),
        ]

    def _ids(self, count: int) -> list[int]:
        opening, closing, call, prose = (
            self._tokenizer.encode(text, add_special_tokens=False) for text in (OPEN, CLOSE, CALL, PROSE)
        )
        words = count - len(opening) - len(closing) - len(call)
        if words < 2:
            return list(islice(cycle(prose), count))
        reasoning, text = islice(cycle(prose), words // 2), islice(cycle(prose), words - words // 2)
        return [*opening, *reasoning, *closing, *text, *call]


def write_tokenizer(gguf: Path, directory: Path) -> Path:
    """Write the tokenizer and the chat template of a GGUF file to a directory without weights."""
    metadata = Metadata(gguf)
    tokenizer(metadata).save(str(directory / "tokenizer.json"))
    settings = {key: value for key, value in tokenizer_config(metadata).items() if value is not None}
    (directory / "tokenizer_config.json").write_bytes(msgspec.json.encode(settings))
    return directory


@fllm.hookimpl
def fllm_backends() -> Iterable[fllm.BackendEntry]:
    yield fllm.BackendEntry("echo", f"{__name__}:EchoBackend", "Returns a fixed output at once.")
