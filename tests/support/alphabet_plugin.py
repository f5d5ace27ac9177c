"""``--backend alphabet``: the token at position ``p`` is letter ``p % 26``, so that a lost one is visible.

Options: ``step`` is the number of seconds per step, ``load`` that of the start.
"""

from __future__ import annotations

import string
import time
from collections.abc import Callable, Iterable, Sequence

from tokenizers import Tokenizer

import fllm
from fllm.batching import BatchedBackend, Row, RunnerCapabilities, Sampled


def is_alphabet(text: str) -> bool:
    """Return whether each letter is the one after the letter before it."""
    return text in string.ascii_lowercase * (len(text) // 26 + 2)


class Runner:
    """Takes the same time for each batch."""

    capabilities = RunnerCapabilities()

    def __init__(self, model: str, step: float, load: float) -> None:
        self._model = model
        self._step = step
        self._load = load
        tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
        self._letters = [tokenizer.encode(letter).ids[0] for letter in string.ascii_lowercase]

    def load(self, progress: Callable[[fllm.Progress], None]) -> fllm.ModelCard:
        time.sleep(self._load)
        return fllm.ModelCard(tokenizer=self._model, max_model_len=8192, runtime={"vocab_size": 256})

    def allocate(self, block_size: int) -> int:
        return 4096

    def execute(self, batch: Sequence[Row]) -> list[Sampled]:
        time.sleep(self._step)
        return [Sampled(token_id=self._token(row) if row.sample else None) for row in batch]

    def _token(self, row: Row) -> int:
        return self._letters[(row.start + row.count) % 26]

    def close(self) -> None:
        pass


def alphabet(config: fllm.BackendConfig, context: fllm.BackendContext) -> fllm.Backend:
    step, load = (float(config.options.get(name, default)) for name, default in (("step", 0.02), ("load", 0)))
    return BatchedBackend(Runner(config.model, step, load), config, context)


@fllm.hookimpl
def fllm_backends() -> Iterable[fllm.BackendEntry]:
    yield fllm.BackendEntry("alphabet", f"{__name__}:alphabet", "The alphabet.", devices=("cpu",))
