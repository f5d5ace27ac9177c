"""Plugins that fail at words of the prompt, such as ``ENGINE HANGS`` or ``PARSER RAISES`` (``tests/faults``).

``--backend faulty`` is an engine in a child process whose runner generates ``aaa...``, one token per 20 ms.
``--backend inside`` runs on the server's event loop.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer

import fllm
from fllm.batching import BatchedBackend, Row, RunnerCapabilities, Sampled

FOREVER = 3600.0
VOCABULARY = 256
STEP = 0.02


def hang() -> None:
    """Loop endlessly in Python code, like a bug."""
    while True:
        pass


def backtrack() -> None:
    """Match a pattern that needs 2^40 attempts."""
    re.match(r"(a+)+$", "a" * 40 + "b")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def raise_(error: Exception) -> None:
    raise error


def exhaust() -> None:
    """Allocate more memory than exists."""
    bytearray(1 << 60)


def send_noise() -> None:
    """Write a frame of the right length to the server, with random content."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:
            if connection.family == socket.AF_INET:
                connection.sendall((40).to_bytes(4, "big") + os.urandom(40))


ENGINE: dict[str, Callable[[], object]] = {
    "ENGINE HANGS": partial(time.sleep, FOREVER),
    "ENGINE DIES": die,
    "ENGINE RAISES": partial(raise_, RuntimeError("the device is on fire")),
    "OUT OF MEMORY": exhaust,
    "ENGINE SENDS NOISE": send_noise,
}


class Runner:
    """Fails at the words of `ENGINE` in any prompt of a batch, during the prefill of that prompt."""

    capabilities = RunnerCapabilities(applies_masks=True)

    def __init__(self, model: str, deaths: Path | None, batches: Path | None) -> None:
        self._batches = batches
        self._model = model
        self._deaths = deaths
        self._tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
        self._a = self._tokenizer.encode("a").ids[0]

    def load(self, progress: Callable[[fllm.Progress], None]) -> fllm.ModelCard:
        if self._deaths is not None and (left := int(self._deaths.read_text())):
            self._deaths.write_text(str(left - 1))
            die()
        runtime = {"vocab_size": VOCABULARY}
        return fllm.ModelCard(tokenizer=self._model, max_model_len=4096, runtime=runtime)

    def allocate(self, block_size: int) -> int:
        return 1024

    def execute(self, batch: Sequence[Row]) -> list[Sampled]:
        time.sleep(STEP)
        if self._batches is not None:
            with self._batches.open("a") as file:
                file.write(f"{len(batch)}\n")
        for row in batch:
            if row.start < row.prompt_length:
                prompt = self._tokenizer.decode(list(row.token_ids[: row.prompt_length]))
                for word, break_ in ENGINE.items():
                    if word in prompt:
                        break_()
        return [Sampled(token_id=self._sample(row) if row.sample else None) for row in batch]

    def _sample(self, row: Row) -> int:
        if row.mask is None:
            return self._a
        mask = row.mask()
        return next(token for token in range(VOCABULARY) if mask[token // 32] >> token % 32 & 1)

    def close(self) -> None:
        pass


def batched(config: fllm.BackendConfig, context: fllm.BackendContext) -> fllm.Backend:
    """Create the engine.

    The option ``deaths`` names a file with the number of starts that fail, ``batches`` one for the number of
    sequences of each step.
    """
    deaths, batches = (
        Path(file) if (file := config.options.get(name)) else None for name in ("deaths", "batches")
    )
    return BatchedBackend(Runner(config.model, deaths, batches), config, context)


class Inside:
    """Raises and hangs on the event loop; ``status`` raises while the option's ``unhealthy_file`` exists."""

    def __init__(self, config: fllm.BackendConfig, context: fllm.BackendContext) -> None:
        self._config = config
        self._tokenizer = Tokenizer.from_file(f"{config.model}/tokenizer.json")
        self._a = self._tokenizer.encode("a").ids[0]

    async def start(self) -> fllm.ModelCard:
        if self._config.options.get("start") == "raise":
            raise ZeroDivisionError("nothing to divide by")
        return fllm.ModelCard(tokenizer=self._config.model, max_model_len=4096)

    async def generate(self, request: fllm.GenerateRequest) -> AsyncGenerator[fllm.EngineOutput]:
        text = self._tokenizer.decode(request.token_ids)
        max_tokens = request.sampling.max_tokens
        for count in range(1, max_tokens + 1):
            await asyncio.sleep(STEP / 2)
            if count == 3 and "BACKEND RAISES" in text:
                raise ZeroDivisionError("nothing to divide by")
            if count == 3 and "BACKEND HANGS" in text:
                time.sleep(FOREVER)
            while count == 3 and "BACKEND WON'T STOP" in text:
                swallow()
            yield fllm.EngineOutput(
                token_ids=[self._a], finish_reason="length" if count == max_tokens else None
            )

    async def status(self) -> fllm.EngineStats:
        file = self._config.options.get("unhealthy_file")
        if file and os.path.exists(file):
            raise ZeroDivisionError("nothing to divide by")
        return fllm.EngineStats()

    async def stop(self) -> None:
        pass


def swallow() -> None:
    """Hang, and swallow every exception, also one that arrives while another is swallowed."""
    with suppress(Exception), suppress(Exception), suppress(Exception):
        hang()


class Parser:
    """Fails at the fifth character, or at the end."""

    def __init__(self, context: fllm.ParserContext) -> None:
        self._prompt = context.prompt
        self._fed = 0
        if "PARSER IS NOT MADE" in self._prompt:
            raise ZeroDivisionError("nothing to divide by")

    def feed(self, text: str) -> Iterable[fllm.Text]:
        self._fed += len(text)
        if self._fed >= 5:
            self._break("PARSER RAISES", partial(raise_, ZeroDivisionError("nothing to divide by")))
            self._break("PARSER HANGS", hang)
            self._break("PARSER BACKTRACKS", backtrack)
        return [fllm.Text(text)]

    def finish(self) -> Iterable[fllm.Text]:
        self._break("PARSER FAILS LATE", partial(raise_, ZeroDivisionError("nothing to divide by")))
        return []

    def constrain_output(self, content: fllm.Constraint) -> fllm.Constraint:
        return content

    def _break(self, word: str, how: Callable[[], object]) -> None:
        if word in self._prompt:
            how()


class FaultyCollector(fllm.Collector):
    """Raises at the start of every request; hangs at the end of requests with ``max_tokens`` 13."""

    def __init__(self, context: fllm.MetricsContext) -> None:
        pass

    def on_request_start(self, request: fllm.RequestRecord) -> None:
        raise ZeroDivisionError("nothing to divide by")

    def on_request_end(self, request: fllm.RequestRecord) -> None:
        if request.max_tokens == 13:
            hang()


class Grammars:
    """Allows any byte; words of the constraint select what fails."""

    def __init__(self, context: fllm.GrammarContext) -> None:
        pass

    def compile(self, constraint: fllm.Constraint) -> fllm.CompiledGrammar:
        what = str(constraint)
        broken("COMPILE", what)
        return Grammar(what)

    def close(self) -> None:
        pass


class Grammar:
    size = 1

    def __init__(self, what: str) -> None:
        self._what = what
        self.is_accepting = False

    def matcher(self) -> Grammar:
        broken("MATCHER", self._what)
        return Grammar(self._what)

    def fill_bitmask(self, mask: memoryview) -> None:
        broken("FILL", self._what)
        allowed = 0 if "NOTHING" in self._what else -1
        for word in range(len(mask)):
            mask[word] = allowed

    def accept_token(self, token_id: int) -> bool:
        broken("ACCEPT", self._what)
        return True


def broken(where: str, what: str) -> None:
    if f"{where} RAISES" in what:
        raise ZeroDivisionError("nothing to divide by")
    if f"{where} HANGS" in what:
        time.sleep(FOREVER)


@fllm.hookimpl
def fllm_backends() -> Iterable[fllm.BackendEntry]:
    yield fllm.BackendEntry("faulty", f"{__name__}:batched", "Fails at words of the prompt.")
    yield fllm.BackendEntry("inside", f"{__name__}:Inside", "Fails on the event loop.", isolated=False)


@fllm.hookimpl
def fllm_tool_parsers() -> Iterable[fllm.Entry]:
    yield fllm.Entry("faulty", f"{__name__}:Parser", "Fails at words of the prompt.")


@fllm.hookimpl
def fllm_reasoning_parsers() -> Iterable[fllm.Entry]:
    yield fllm.Entry("faulty", f"{__name__}:Parser", "Fails at words of the prompt.")


@fllm.hookimpl
def fllm_grammars() -> Iterable[fllm.Entry]:
    yield fllm.Entry("faulty", f"{__name__}:Grammars", "Fails at words of the prompt.")


@fllm.hookimpl
def fllm_collectors(context: fllm.MetricsContext) -> Iterable[fllm.Collector]:
    if "FAULTY_COLLECTOR" in os.environ:
        yield FaultyCollector(context)
