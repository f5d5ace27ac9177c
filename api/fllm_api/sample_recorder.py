"""``--record``: a file with what the models of a running server write, as samples for parsers."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any

import msgspec
from msgspec import Struct

from fllm.containment import contained
from fllm.errors import format_error
from fllm.parsing.sample import PROMPT_END, ParserSample
from fllm.pipeline.output_processor import SequenceOutput
from fllm.pipeline.pipeline import PipelineRequest
from fllm.pipeline.samples import SampledParsers, make_samples
from fllm_api.record_config import RecordConfig, open_private

MAX_PENDING_CHARACTERS = 16 * 1024**2
"""Characters that may wait to be written, with those of the prompts. More are left out, so that a slow disk
delays no response."""
MAX_PENDING_REQUESTS = 1024
"""Number of requests that may wait."""
CLOSE_SECONDS = 2.0
"""Seconds that the server waits at its end for what is not written yet."""
NAMES = ("parser", "kind", "model")
"""Fields of a sample that are not redacted."""

log = logging.getLogger("fllm.record")


class _Finished(Struct, frozen=True):
    """A finished request."""

    parsers: SampledParsers
    model: str
    texts: Sequence[str]
    """What the parsers received, for each sequence."""

    @property
    def characters(self) -> int:
        return sum(map(len, self.texts)) + len(self.parsers.context.prompt)


class SampleRecorder:
    """Appends the samples of each finished request to the file, with one write in a thread of its own.

    An error of the file ends the recording, not the server.
    """

    def __init__(self, config: RecordConfig) -> None:
        self._config = config
        self._queue: SimpleQueue[_Finished | None] = SimpleQueue()
        self._added = 0
        """Characters that were put into the queue."""
        self._done = 0
        """Those that the thread has processed. Each count has one writer, so they need no lock."""
        self._stopped = False
        self._left_out = False

    async def watch(
        self, outputs: AsyncGenerator[list[SequenceOutput]], request: PipelineRequest, model: str
    ) -> AsyncGenerator[list[SequenceOutput]]:
        """Yield the outputs of a request, and record it once it is complete."""
        pieces: dict[int, list[str]] = {}
        async with aclosing(outputs):
            async for batch in outputs:
                for output in batch:
                    pieces.setdefault(output.index, []).append(output.raw_text)
                yield batch
        texts = ["".join(pieces[index]) for index in sorted(pieces)]
        self._put(_Finished(SampledParsers.of(request), model, texts))

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Write while the server runs. Raise `ConfigError` if the file can't be opened."""
        descriptor = open_private(self._config.file)
        queue = self._queue = SimpleQueue()
        # The thread closes its own file, even if another thread has begun meanwhile, after a reload.
        thread = Thread(target=self._run, args=(queue, descriptor), name="fllm-record", daemon=True)
        thread.start()
        try:
            yield
        finally:
            queue.put(None)
            await asyncio.to_thread(thread.join, CLOSE_SECONDS)

    def _put(self, finished: _Finished) -> None:
        if self._stopped:
            return
        pending = self._added - self._done + finished.characters
        if pending > MAX_PENDING_CHARACTERS or self._queue.qsize() >= MAX_PENDING_REQUESTS:
            if not self._left_out:
                log.warning("--record: the file is slower than the responses: some are left out")
            self._left_out = True
            return
        self._added += finished.characters
        self._queue.put(finished)

    def _run(self, queue: SimpleQueue[_Finished | None], descriptor: int) -> None:
        while (finished := queue.get()) is not None:
            with contained(self._failed):
                if not self._stopped:
                    self._write(descriptor, b"".join(self._lines(finished)))
            self._done += finished.characters
        os.close(descriptor)

    def _write(self, descriptor: int, lines: bytes) -> None:
        """Append lines. Raise `OSError` if they don't fit; then the file has no part of them."""
        before, written = os.fstat(descriptor).st_size, 0  # another server may write to it as well
        if before + len(lines) > self._config.max_bytes:
            raise OSError(errno.EFBIG, f"it has the maximum size of {self._config.max_bytes} bytes")
        try:
            while written < len(lines):
                written += os.write(descriptor, lines[written:])
        except OSError:
            if os.fstat(descriptor).st_size == before + written:
                os.ftruncate(descriptor, before)
            raise

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, OSError):
            self._stopped = True
            log.warning("--record %s: nothing more is recorded: %s", self._config.file, error)
        else:  # of a parser, which has failed the request already
            log.warning("--record %s: a request is left out: %s", self._config.file, format_error(error))

    def _lines(self, finished: _Finished) -> Iterator[bytes]:
        for text in finished.texts:
            for sample in make_samples(finished.parsers, text, finished.model):
                yield msgspec.json.encode(self._redact(sample, finished.parsers.context.prompt)) + b"\n"

    def _redact(self, sample: ParserSample, prompt: str) -> Any:
        """Return the sample, or its fields without what must not be in the file.

        Events no longer fit a text that has changed, so they are left out.
        """
        if not self._config.redact:
            return sample
        fields = msgspec.to_builtins(sample)
        redacted = {
            name: value if name in NAMES else _replace(value, self._config.redact)
            for name, value in fields.items()
        }
        if sample.prompt_end:  # no pattern matches a text that was cut in the middle
            redacted["prompt_end"] = _replace(prompt, self._config.redact)[-PROMPT_END:]
        if redacted != fields:
            redacted.pop("events", None)
        return redacted


def _replace(value: Any, patterns: Sequence[re.Pattern[str]]) -> Any:
    """Replace what the patterns match in all strings of a value, but not in the names of its fields."""
    match value:
        case str():
            for pattern in patterns:
                value = pattern.sub("[redacted]", value)
            return value
        case Mapping():
            return {name: _replace(each, patterns) for name, each in value.items()}
        case list() | tuple():
            return [_replace(each, patterns) for each in value]
    return value
