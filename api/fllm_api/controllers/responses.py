"""Responses of the generation endpoints: one JSON object, or a stream of server-sent events.

Both send the same chunks. The JSON object is the fold of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from fllm.concurrency.turn_executor import Pieces, TurnExecutor
from fllm.pipeline.output_processor import SequenceOutput
from fllm.pipeline.pipeline import PipelineRequest
from fllm_api.app_state import AppState
from fllm_api.controllers.event_stream import EventStream, write_body
from fllm_api.encoding.encoder import Encoder
from fllm_api.encoding.logprobs import PIECE_TOKENS
from fllm_api.encoding.whole_output import WholeOutput
from fllm_api.errors import classify_error, record_failure
from fllm_api.intake.json_body import ApiRequest
from fllm_api.intake.prefix_cache import separate_clients
from fllm_api.lifecycle.client_disconnect import ClientDisconnected, run_while_connected
from fllm_api.limits.admission import AdmissionSlot
from fllm_api.middleware.admission import reserve_slot
from fllm_api.protocol.errors import ErrorResponse
from fllm_api.request_context import context_of

_json = msgspec.json.Encoder()

DONE = b"data: [DONE]\n\n"
MAX_OUTPUTS = 256
"""Maximum number of outputs that are encoded at once for a stream."""


class GenerationResponse(ASGIResponse):
    """Sends the outputs of one request. If the client disconnects, the generation is aborted."""

    def __init__(
        self,
        request: ApiRequest,
        outputs: AsyncGenerator[list[SequenceOutput]],
        encoder: Encoder[Any],
        turns: TurnExecutor,
        **response: Any,
    ) -> None:
        super().__init__(**response)
        self._request = request
        self._turns = turns
        self._deadline = context_of(request.scope).deadline
        self._outputs = outputs
        self._encoder = encoder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await run_while_connected(receive, self._send_and_release(send, context_of(scope).slot))
        except ClientDisconnected as disconnected:
            context = context_of(scope)
            context.error = context.error or str(disconnected)

    async def _send_and_release(self, send: Send, slot: AdmissionSlot) -> None:
        """Send the response and free its slot in the same step, before the client's next request is read."""
        await self._send(send)
        slot.release()

    async def _send(self, send: Send) -> None:
        raise NotImplementedError

    async def _chunks(self, outputs: Sequence[SequenceOutput]) -> list[Any]:
        """Return the chunks of the outputs. Many log-probabilities are encoded in turns by client."""
        if sum(map(self._encoder.logprob_tokens, outputs)) > PIECE_TOKENS:
            return await self._turns.run(self._encode(outputs), context_of(self._request.scope).client)
        return [chunk for output in outputs for chunk in self._encoder.feed(output)]

    def _encode(self, outputs: Sequence[SequenceOutput]) -> Pieces[list[Any]]:
        chunks = []
        for output in outputs:
            if self._encoder.logprob_tokens(output):
                yield from self._encoder.convert_logprobs(output)
            chunks += self._encoder.feed(output)
            yield 0
        return chunks


class JsonResponse(GenerationResponse):
    """Sends one JSON object once the generation is complete."""

    async def _send(self, send: Send) -> None:
        whole: dict[int, WholeOutput] = {}
        async with aclosing(self._outputs) as stream, self._deadline.enforce():
            async for outputs in stream:
                for output in outputs:
                    if output.index in whole:
                        whole[output.index].add(output)
                    else:
                        whole[output.index] = WholeOutput(output, keep_tokens=self._encoder.needs_tokens)
            chunks = await self._chunks([whole.pop(index).merged() for index in sorted(whole)])
        body = _json.encode(self._encoder.fold(chunks))
        del chunks  # a slow reader holds the body only
        self.headers["content-length"] = str(len(body))
        await self.start_response(send)
        await write_body(send, body, more=False)


class EventStreamResponse(GenerationResponse):
    """Sends server-sent events: one write for all outputs that arrive together, if they produce a chunk.

    A failure before the first event or comment has its own status code; a later one is an event.
    """

    _should_set_content_length = False

    def __init__(
        self,
        request: ApiRequest,
        outputs: AsyncGenerator[list[SequenceOutput]],
        encoder: Encoder[Any],
        turns: TurnExecutor,
        keep_alive: float,
    ) -> None:
        self._keep_alive = keep_alive
        # A buffering proxy would deliver the stream in one piece.
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(request, outputs, encoder, turns, media_type="text/event-stream", headers=headers)

    async def _send(self, send: Send) -> None:
        events = EventStream(send, self.start_response, self._keep_alive)
        async with aclosing(self._outputs) as stream, events:
            try:
                async with self._deadline.enforce():
                    async for outputs in stream:
                        await self._write_events(events, outputs)
                end = _events(self._encoder.finish())
            except Exception as error:
                if not events.started:
                    raise
                end = self._error_event(error)  # the status is sent, so the stream reports it
            await events.write(end + DONE, more=False)

    async def _write_events(self, events: EventStream, outputs: Sequence[SequenceOutput]) -> None:
        for start in range(0, len(outputs), MAX_OUTPUTS):
            if chunks := await self._chunks(outputs[start : start + MAX_OUTPUTS]):
                await events.write(_events(chunks))
            if start:  # a slow reader's outputs have accumulated
                await asyncio.sleep(0)

    def _error_event(self, error: Exception) -> bytes:
        _, body = classify_error(error)
        record_failure(self._request, error, body)
        return _events([ErrorResponse(body)])


def create_response(
    http_request: ApiRequest,
    server: AppState,
    request: PipelineRequest,
    encoder: Encoder[Any],
    *,
    stream: bool,
) -> GenerationResponse:
    """Reserve capacity for a request and return its response, which starts the generation when it is sent.

    The body is discarded: a stream may be long.

    Raise the errors of `AdmissionSlot.reserve`.
    """
    request = separate_clients(reserve_slot(http_request.scope, request), server)
    http_request.discard_body()
    tracker = context_of(http_request.scope).tracker
    tracker.submit(
        prompt_tokens=sum(map(len, request.prompts)),
        max_tokens=request.sampling.max_tokens,
        n=request.n,
        streamed=stream,
        adapter=request.adapter.name if request.adapter else "",
    )
    outputs = server.pipeline.generate(request, tracker)
    if stream:
        keep_alive = server.config.sse_keep_alive
        return EventStreamResponse(http_request, outputs, encoder, server.turns, keep_alive)
    return JsonResponse(http_request, outputs, encoder, server.turns)


def _events(chunks: Iterable[msgspec.Struct]) -> bytes:
    return b"".join([b"data: " + _json.encode(chunk) + b"\n\n" for chunk in chunks])
