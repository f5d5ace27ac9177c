"""The server for one request, which route handlers receive: `fllm.Serving`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from litestar.response.base import ASGIResponse
from msgspec import Struct
from msgspec.structs import replace

from fllm.chat import ChatTemplate
from fllm.chat.template import SlowTemplate
from fllm.concurrency.turn_executor import Pieces, run_at_once
from fllm.errors import RequestError
from fllm.interfaces import Backend, PoolingBackend
from fllm.pipeline.output_processor import SequenceOutput
from fllm.requests.chat import ChatMessage, ChatRequest
from fllm.requests.completions import CompletionRequest
from fllm.serving import NAMED_EVENTS, Client, Framing, Generation, OnEnd, ResponseEncoder
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard, PoolingInput, PoolingOutput, PoolingRequest, PreparedImages
from fllm_api.app_state import AppState
from fllm_api.intake.chat import prepare_chat, render_chat
from fllm_api.intake.completions import prepare_completion
from fllm_api.intake.images import has_images, read_images
from fllm_api.intake.json_body import ApiRequest
from fllm_api.intake.tokenization import tokenize_any
from fllm_api.lifecycle.client_disconnect import run_while_connected
from fllm_api.request_context import RequestContext, context_of
from fllm_api.serving.generation import ServedGeneration
from fllm_api.serving.responses import ChunkStream, GenerationJson, GenerationStream, collect

T = TypeVar("T")

SMALL_BODY_BYTES = 4096
"""Maximum size of a body that is prepared on the event loop: that takes less than a change of threads."""


class RequestServing:
    """The server for one HTTP request, or for work in the background, which has no connection."""

    def __init__(self, state: AppState, context: RequestContext, request: ApiRequest | None) -> None:
        self.state = state
        self._context = context
        self._request = request

    @property
    def card(self) -> ModelCard:
        """The description of the model."""
        return self.state.card

    @property
    def backend(self) -> Backend:
        """The backend."""
        return self.state.backend

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.state.tokenizer

    @property
    def template(self) -> ChatTemplate | None:
        """The model's chat template."""
        return self.state.template

    @property
    def served_model_name(self) -> str:
        """The name of the model in responses."""
        return self.state.config.served_model_name

    @property
    def request_id(self) -> str:
        """Id of the request."""
        return self._context.request_id

    @property
    def client(self) -> str:
        """Name of the client."""
        return self._context.client

    @property
    def owner(self) -> str:
        """Who owns what the request stores."""
        return self._context.owner

    async def prepare(self, work: Pieces[T], *, slow: bool = False) -> T:
        """Return the result of the work, and charge the client for it, also if the request is rejected.

        Raise the errors of the work, and `ClientDisconnected`.
        """
        charge = self._context.charge
        if self._request is not None and not slow and len(await self._request.body()) <= SMALL_BODY_BYTES:
            return run_at_once(work, charge)
        return await self._while_connected(self.state.turns.run(work, self.client, charge))

    async def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text that may exceed the context.

        Raise `ContextTooLong` if it does by far.
        """
        work = tokenize_any(
            text, self.tokenizer, self.card, add_special_tokens=add_special_tokens, param="prompt"
        )
        return await self.prepare(work, slow=len(text) > SMALL_BODY_BYTES)

    async def render_chat(self, request: ChatRequest) -> str:
        """Return the text of the prompt. Raise `RequestError` if the chat template rejects the request."""
        return await self._with_template(request, lambda images: _render(request, self.state, images))

    async def tokenize_chat(self, request: ChatRequest) -> list[int]:
        """Return the token ids of the prompt. Raise `RequestError` as `render_chat` and `tokenize`."""
        return await self._with_template(request, lambda images: _tokenize(request, self.state, images))

    async def read_chat(self, request: ChatRequest, *, allowed_counts: bool = False) -> ServedGeneration:
        """Return the generation for a chat. Raise `RequestError` if the request is invalid."""
        prepared = await self._with_template(
            request, lambda images: prepare_chat(request, self.state, images)
        )
        if allowed_counts:
            sampling = replace(prepared.request.sampling, allowed_counts=True)
            prepared = replace(prepared, request=replace(prepared.request, sampling=sampling))
        return ServedGeneration(prepared, self._context, self.state)

    async def read_completion(self, request: CompletionRequest) -> ServedGeneration:
        """Return the generation for a text to continue. Raise `RequestError` if the request is invalid."""
        prepared = await self.prepare(prepare_completion(request, self.state))
        return ServedGeneration(prepared, self._context, self.state)

    async def whole(self, generation: Generation) -> list[SequenceOutput]:
        """Generate, and return one output with all events for each sequence."""
        outputs = generation.outputs()
        self._discard_body()

        async def generate() -> list[SequenceOutput]:
            async with aclosing(outputs), self._context.deadline.enforce():
                return await collect(outputs)

        return await self._while_connected(generate())

    def respond(
        self,
        generation: Generation,
        encoder: ResponseEncoder[Any],
        *,
        stream: bool,
        framing: Framing = NAMED_EVENTS,
        on_end: OnEnd | None = None,
    ) -> ASGIResponse:
        """Reserve capacity, and return the response, which starts the generation when it is sent.

        The body is discarded: a stream may be long. Raise the errors of `AdmissionSlot.reserve`.
        """
        outputs = generation.outputs(streamed=stream)
        self._discard_body()
        if stream:
            keep_alive = self.state.config.sse_keep_alive if framing.has_comments else 0
            return GenerationStream(
                self._connection, outputs, encoder, self.state.turns, on_end, framing, keep_alive
            )
        return GenerationJson(self._connection, outputs, encoder, self.state.turns, on_end)

    def stream(
        self, chunks: AsyncGenerator[Sequence[Struct]], framing: Framing = NAMED_EVENTS
    ) -> ASGIResponse:
        """Return the response that streams chunks which come from elsewhere, and free the request's slot."""
        self._context.release_slot()  # what generates the chunks may wait for it
        keep_alive = self.state.config.sse_keep_alive if framing.has_comments else 0
        return ChunkStream(self._connection, chunks, framing, keep_alive)

    async def pool(
        self,
        inputs: list[PoolingInput],
        *,
        dimensions: int | None = None,
        activation: bool | None = None,
        priority: int = 0,
    ) -> PoolingOutput:
        """Return one vector for each input.

        Raise `RequestError`, the errors of `AdmissionSlot.reserve`, or `ClientDisconnected`.
        """
        backend = self.backend
        if self.card.pooling is None or not isinstance(backend, PoolingBackend):
            raise RequestError("this model generates text; it does not pool", param="model")
        context = self._context
        tokens = sum(len(each.token_ids) for each in inputs)
        context.slot.reserve(1, tokens)
        self._discard_body()
        tracker = context.tracker
        tracker.submit(prompt_tokens=tokens, max_tokens=None)
        request = PoolingRequest(
            request_id=tracker.key,
            inputs=inputs,
            dimensions=dimensions,
            activation=activation,
            client=context.client,
            priority=priority + context.priority,
        )
        try:
            output = await self._while_connected(backend.pool(request))
        except BaseException as error:
            tracker.end(0, "error" if isinstance(error, Exception) else "abort")
            raise
        tracker.step(0, 0, output.queue_time)
        tracker.end(0, "stop")
        return output

    @property
    def _connection(self) -> ApiRequest:
        if self._request is None:
            raise RuntimeError("work in the background has no response")
        return self._request

    def _discard_body(self) -> None:
        if self._request is not None:
            self._request.discard_body()

    async def _while_connected(self, work: Coroutine[None, None, T]) -> T:
        return await work if self._request is None else await run_while_connected(self._request.receive, work)

    async def _with_template(
        self, request: ChatRequest, work: Callable[[PreparedImages | None], Pieces[T]]
    ) -> T:
        """Return the result of work that renders the chat template, in a thread of its own if it is slow."""
        images = None
        if has_images(request.messages):
            reading = read_images(request.messages, self.state, self.client)
            images = await self._while_connected(reading)
        template = self.state.template
        if request.chat_template is None and not (template is not None and template.slow):
            try:
                return await self.prepare(work(images), slow=_is_long(request.messages))
            except SlowTemplate:
                pass
        turns = self.state.template_turns.run(work(images), self.client, self._context.charge)
        return await self._while_connected(turns)


def _is_long(messages: Iterable[ChatMessage]) -> bool:
    """Return whether a chat is longer than a small body: a dialect may continue one that it has stored."""
    size = 0
    for length in _lengths(messages):
        size += length + 1
        if size > SMALL_BODY_BYTES:
            return True
    return False


def _lengths(messages: Iterable[ChatMessage]) -> Iterator[int]:
    for message in messages:
        yield len(message.reasoning_content or "")
        if isinstance(message.content, str):
            yield len(message.content)
        else:
            yield from (len(part.text or "") for part in message.content or ())
        for call in message.tool_calls or ():
            yield len(call.function.arguments) if isinstance(call.function.arguments, str) else 0


def _render(request: ChatRequest, state: AppState, images: PreparedImages | None) -> Pieces[str]:
    yield 0
    return render_chat(request, state, images)


def _tokenize(request: ChatRequest, state: AppState, images: PreparedImages | None) -> Pieces[list[int]]:
    prompt = yield from _render(request, state, images)
    special = bool(request.add_special_tokens)
    return (
        yield from tokenize_any(
            prompt, state.tokenizer, state.card, add_special_tokens=special, param="messages"
        )
    )


def request_client(request: ApiRequest) -> Client:
    """Return who sends a request (the dependency ``client``)."""
    context = context_of(request.scope)
    return Client(context.client, context.owner, context.sees_all)
