"""Two ways to send the same outputs: as a stream of events, or whole, as their fold."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from fllm.pipeline.output_processor import SequenceOutput
from fllm.pipeline.pipeline import PipelineRequest
from fllm_api.app_state import AppState
from fllm_api.encoding.encoder import Encoder
from fllm_api.errors import describe, report
from fllm_api.intake.json_body import ApiRequest
from fllm_api.lifecycle.client_disconnect import ClientGone, while_connected
from fllm_api.lifecycle.deadline import Deadline
from fllm_api.middleware.admission import claimed
from fllm_api.protocol.errors import ErrorResponse

_json = msgspec.json.Encoder()

DONE = b"data: [DONE]\n\n"


class Answer(ASGIResponse):
    """Sends the outputs of one request; closes them, which aborts, as soon as the client goes away."""

    def __init__(
        self,
        request: ApiRequest,
        outputs: AsyncGenerator[list[SequenceOutput]],
        encoder: Encoder[Any],
        **response: Any,
    ) -> None:
        super().__init__(**response)
        self._request = request
        self._deadline: Deadline = request.scope["state"]["deadline"]
        self._outputs = outputs
        self._encoder = encoder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, self._answer(send))
        except ClientGone:
            scope["state"].setdefault("error", "the client went away")

    async def _answer(self, send: Send) -> None:
        raise NotImplementedError

    def _chunks(self, outputs: Sequence[SequenceOutput]) -> list[Any]:
        return [chunk for output in outputs for chunk in self._encoder.feed(output)]


class WholeAnswer(Answer):
    """One JSON object."""

    async def _answer(self, send: Send) -> None:
        chunks: list[Any] = []
        async with aclosing(self._outputs) as arriving, self._deadline.bounds():
            async for outputs in arriving:
                chunks += self._chunks(outputs)
        body = _json.encode(self._encoder.fold(chunks))
        self.headers["content-length"] = str(len(body))
        await self.start_response(send)
        await _write(send, body, more=False)


class EventStream(Answer):
    """Server-sent events: one write for all that come together, if it shows something.

    Nothing is sent before the first output is there, so whatever fails until then still gets its own status.
    """

    _should_set_content_length = False

    def __init__(
        self, request: ApiRequest, outputs: AsyncGenerator[list[SequenceOutput]], encoder: Encoder[Any]
    ) -> None:
        # A proxy that buffers would make one answer of a stream.
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(request, outputs, encoder, media_type="text/event-stream", headers=headers)

    async def _answer(self, send: Send) -> None:
        async with aclosing(self._outputs) as arriving:
            async with self._deadline.bounds():
                first = await anext(arriving)
            await self.start_response(send)
            try:
                async with self._deadline.bounds():
                    await _write(send, _events(self._chunks(first)))
                    async for outputs in arriving:
                        if chunks := self._chunks(outputs):
                            await _write(send, _events(chunks))
                end = _events(self._encoder.finish())
            except Exception as error:  # noqa: BLE001 (the edge: the status is sent, so the stream must say it)
                end = self._failure(error)
        await _write(send, end + DONE, more=False)

    def _failure(self, error: Exception) -> bytes:
        _, body = describe(error)
        report(self._request, error, body)
        return _events([ErrorResponse(body)])


def answer(
    request: ApiRequest, server: AppState, asked: PipelineRequest, encoder: Encoder[Any], *, stream: bool
) -> Answer:
    """Ask the pipeline, if there is room; nothing is generated before the answer is sent."""
    asked = claimed(request.scope, asked)
    tracker = request.scope["state"]["trace"]
    tracker.submit(
        prompt_tokens=sum(map(len, asked.prompts)),
        max_tokens=asked.sampling.max_tokens,
        answers=asked.n,
        streamed=stream,
    )
    outputs = server.pipeline.generate(asked, tracker)
    return EventStream(request, outputs, encoder) if stream else WholeAnswer(request, outputs, encoder)


def _events(chunks: Iterable[msgspec.Struct]) -> bytes:
    return b"".join([b"data: " + _json.encode(chunk) + b"\n\n" for chunk in chunks])


async def _write(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
