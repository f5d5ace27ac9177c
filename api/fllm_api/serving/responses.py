"""Responses of routes that generate: one JSON object, or a stream of chunks.

Both come from the same chunks. The JSON object is the fold of the stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from fllm.concurrency.turn_executor import Pieces, TurnExecutor
from fllm.containment import contained
from fllm.pipeline.output_processor import SequenceOutput
from fllm.serving import ErrorInfo, Framing, OnEnd, Outcome, ResponseEncoder
from fllm_api.encoding.logprobs import PIECE_TOKENS
from fllm_api.encoding.whole_output import WholeOutput
from fllm_api.errors import classify_error, own_error_body, record_failure
from fllm_api.intake.json_body import ApiRequest
from fllm_api.lifecycle.client_disconnect import ClientDisconnected, run_while_connected
from fllm_api.request_context import context_of
from fllm_api.serving.event_stream import EventStream, write_body

log = logging.getLogger("fllm.api")

_json = msgspec.json.Encoder()

MAX_OUTPUTS = 256
"""Maximum number of outputs that are encoded at once for a stream."""
END_SECONDS = 60.0
"""Maximum duration of ``on_end``."""


class _Response(ASGIResponse):
    """A response that is sent while its client is connected. If the client disconnects, it is cancelled."""

    def __init__(self, request: ApiRequest, **response: Any) -> None:
        super().__init__(**response)
        self._request = request
        self._context = context_of(request.scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        try:
            await run_while_connected(receive, self._send_and_release(send))
        except ClientDisconnected as disconnected:
            self._context.error = self._context.error or str(disconnected)

    async def _send_and_release(self, send: Send) -> None:
        """Send the response and free its slot in the same step, before the client's next request is read."""
        await self._send(send)
        self._context.release_slot()

    async def _send(self, send: Send) -> None:
        raise NotImplementedError


class GenerationChunks:
    """The chunks of one generation, and the call of ``on_end``."""

    def __init__(
        self, encoder: ResponseEncoder[Any], turns: TurnExecutor, client: str, on_end: OnEnd | None
    ) -> None:
        self.encoder = encoder
        self._turns = turns
        self._client = client
        self._on_end = on_end

    async def encode(self, outputs: Sequence[SequenceOutput]) -> list[Any]:
        """Return the chunks of the outputs. Many log-probabilities are encoded in turns by client."""
        if sum(map(self.encoder.logprob_tokens, outputs)) > PIECE_TOKENS:
            return await self._turns.run(self._encode(outputs), self._client)
        return [chunk for output in outputs for chunk in self.encoder.feed(output)]

    async def stream(self, outputs: AsyncGenerator[list[SequenceOutput]]) -> AsyncGenerator[list[Any]]:
        """Yield the chunks of each output as it arrives."""
        started = False
        async for batch in outputs:
            for start in range(0, len(batch), MAX_OUTPUTS):
                first = [] if started else self.encoder.start()
                started = True
                yield [*first, *await self.encode(batch[start : start + MAX_OUTPUTS])]
                if start:  # a slow reader's outputs have accumulated
                    await asyncio.sleep(0)
        last = self.encoder.finish()
        await self.end("complete")
        yield last

    async def fail(self, error: ErrorInfo) -> Sequence[Struct] | None:
        """Return the chunks that report an error; ``None`` if the encoder fails, too."""
        chunks: Sequence[Struct] | None = None
        with contained(_log_failure):
            chunks = self.encoder.error(error)
        await self.end_early("error")
        return chunks

    async def end_early(self, outcome: Outcome) -> None:
        """Call ``on_end`` for a response that fails already: its own error is only logged."""
        with contained(_log_failure):
            await self.end(outcome)

    async def end(self, outcome: Outcome) -> None:
        """Call ``on_end`` once. It may not keep the request in flight for longer than `END_SECONDS`."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            async with asyncio.timeout(END_SECONDS):
                await on_end(outcome)

    def _encode(self, outputs: Sequence[SequenceOutput]) -> Pieces[list[Any]]:
        chunks = []
        for output in outputs:
            if self.encoder.logprob_tokens(output):
                yield from self.encoder.convert_logprobs(output)
            chunks += self.encoder.feed(output)
            yield 0
        return chunks


class GenerationJson(_Response):
    """Sends one JSON object once the generation is complete."""

    def __init__(
        self,
        request: ApiRequest,
        outputs: AsyncGenerator[list[SequenceOutput]],
        encoder: ResponseEncoder[Any],
        turns: TurnExecutor,
        on_end: OnEnd | None,
    ) -> None:
        super().__init__(request)
        self._outputs = outputs
        self._chunks = GenerationChunks(encoder, turns, self._context.client, on_end)

    async def _send(self, send: Send) -> None:
        try:
            body = await self._body()
        except asyncio.CancelledError:
            await self._chunks.end_early("abort")
            raise
        except Exception as error:
            await self._chunks.fail(classify_error(error)[1])
            raise
        self.headers["content-length"] = str(len(body))
        await self.start_response(send)
        await write_body(send, body, more=False)

    async def _body(self) -> bytes:
        encoder = self._chunks.encoder
        async with aclosing(self._outputs) as stream, self._context.deadline.enforce():
            whole = await collect(stream, keep_tokens=encoder.needs_tokens)
            chunks = [*encoder.start(), *await self._chunks.encode(whole), *encoder.finish()]
            body = _json.encode(encoder.fold(chunks))
            await self._chunks.end("complete")
        return body


class ChunkStream(_Response):
    """Sends chunks in a framing: one write for all that arrive together.

    A failure before the first chunk or comment has its own status code; a later one is a chunk.
    """

    _should_set_content_length = False

    def __init__(
        self,
        request: ApiRequest,
        chunks: AsyncGenerator[Sequence[Struct]],
        framing: Framing,
        keep_alive: float,
    ) -> None:
        # A buffering proxy would deliver the stream in one piece.
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(request, media_type=framing.media_type, headers=headers)
        self._chunks = chunks
        self._framing = framing
        self._keep_alive = keep_alive

    async def _send(self, send: Send) -> None:
        events = EventStream(send, self.start_response, self._keep_alive)
        encode = self._framing.encode
        async with events:
            last = b""
            try:
                async with aclosing(self._chunks) as stream, self._context.deadline.enforce():
                    async for chunks in stream:
                        if chunks:
                            await events.write(b"".join(map(encode, chunks)))
            except Exception as error:
                status, info = classify_error(error)
                failure = await self._fail(status, info)
                if not events.started:
                    raise
                record_failure(self._request, error, info)
                last = failure  # the status is sent, so the stream reports it
            await events.write(last + self._framing.end, more=False)

    async def _fail(self, status: int, error: ErrorInfo) -> bytes:
        """Return the end of a stream that fails."""
        return self._framing.encode_error(own_error_body(self._request, status, error))


class GenerationStream(ChunkStream):
    """Sends the chunks of a generation."""

    def __init__(
        self,
        request: ApiRequest,
        outputs: AsyncGenerator[list[SequenceOutput]],
        encoder: ResponseEncoder[Any],
        turns: TurnExecutor,
        on_end: OnEnd | None,
        framing: Framing,
        keep_alive: float,
    ) -> None:
        self._generation = GenerationChunks(encoder, turns, context_of(request.scope).client, on_end)
        self._outputs = outputs
        super().__init__(request, self._generation.stream(outputs), framing, keep_alive)

    async def _send(self, send: Send) -> None:
        async with aclosing(self._outputs):
            try:
                await super()._send(send)
            except asyncio.CancelledError:
                await self._generation.end_early("abort")
                raise

    async def _fail(self, status: int, error: ErrorInfo) -> bytes:
        chunks = await self._generation.fail(error)
        if chunks is None:
            return await super()._fail(status, error)
        return b"".join(map(self._framing.encode, chunks))


def _log_failure(error: BaseException) -> None:
    log.error("the response of a route failed while it reported an error", exc_info=error)


async def collect(
    outputs: AsyncGenerator[list[SequenceOutput]], *, keep_tokens: bool = False
) -> list[SequenceOutput]:
    """Return all outputs of each sequence as one."""
    whole: dict[int, WholeOutput] = {}
    async for batch in outputs:
        for output in batch:
            if output.index in whole:
                whole[output.index].add(output)
            else:
                whole[output.index] = WholeOutput(output, keep_tokens=keep_tokens)
    return [whole[index].merged() for index in sorted(whole)]
