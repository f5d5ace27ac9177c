"""What route handlers of plugins receive: the server, for one request.

::

    ChatRequest ─ Serving.read_chat ─▶ Generation ─ outputs ─▶ SequenceOutput* ─ ResponseEncoder ─▶ chunks
                                                    chunks ─ Framing ─▶ a stream, or folded: a JSON object

A handler turns the request of its API into a `fllm.ChatRequest`, and outputs into chunks of its API. The
server does the rest, in the same way for every API: admission, limits, deadlines, disconnects, metrics,
traces.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import msgspec
from msgspec import Struct

from fllm.interfaces import Backend, Collector, RequestRecord
from fllm.requests.chat import ChatRequest
from fllm.requests.completions import CompletionRequest
from fllm.server_description import ServerDescription
from fllm.values import ModelCard, PoolingInput, PoolingOutput

if TYPE_CHECKING:  # importing these takes a fifth of the time of `furiosa-llm --help`
    import asyncio

    from fllm.chat import ChatTemplate
    from fllm.concurrency.turn_executor import Pieces
    from fllm.pipeline.output_processor import SequenceOutput
    from fllm.pipeline.pipeline import PipelineRequest
    from fllm.tokenizer import Tokenizer

T = TypeVar("T")
Chunk = TypeVar("Chunk", bound=Struct)

Outcome = Literal["complete", "error", "abort"]
"""How a generation ended. ``abort``: the client left."""
OnEnd = Callable[[Outcome], Awaitable[None]]

USES_ENGINE: Mapping[str, Any] = {"uses_engine": True}
"""The ``opt`` of a route handler whose requests need the engine.

The limits of the server and of each client hold for them, and collectors receive them.
"""
LIMITED: Mapping[str, Any] = {"limited": True}
"""The ``opt`` of a route handler whose requests count against the limits, but generate nothing."""
STREAMS_BODY: Mapping[str, Any] = {"streams_body": True}
"""The ``opt`` of a route handler that reads ``request.stream()``, and never holds the whole body.

The body takes no part in the memory for bodies, and is not in the log of payloads. The handler must limit its
size, and needs ``request_max_body_size=None``.
"""
PUBLIC: Mapping[str, Any] = {"public": True}
"""The ``opt`` of a route handler that needs no key."""
ADMIN_TOO: Mapping[str, Any] = {"admin_too": True}
"""The ``opt`` of a route handler for which a key of ``--admin-key`` is valid as well as an API key.

`Client.sees_all` says whether the request sent one.
"""
POLLED: Mapping[str, Any] = {"polled": True}
"""The ``opt`` of a route handler that a page asks again and again: only its errors are in the access log."""
ANY_CONTENT_TYPE: Mapping[str, Any] = {"any_content_type": True}
"""The ``opt`` of a route handler whose body is JSON whatever ``Content-Type`` says, or if there is none.

A web page must send ``application/json`` nevertheless: then its browser asks first whether it may.
"""


class ErrorInfo(Struct, frozen=True):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None = None
    """JSON path of the offending field, such as ``messages[0].role``."""
    code: str | None = None
    """Stable, machine-readable code, such as ``model_not_found``."""


_json = msgspec.json.Encoder()


def _data_event(chunk: Struct) -> bytes:
    return b"data: " + _json.encode(chunk) + b"\n\n"


def _named_event(chunk: Struct) -> bytes:
    name = chunk.__struct_config__.tag or getattr(chunk, "type", "message")
    return b"event: " + str(name).encode() + b"\ndata: " + _json.encode(chunk) + b"\n\n"


def _line(chunk: Struct) -> bytes:
    return _json.encode(chunk) + b"\n"


class Framing(Struct, frozen=True):
    """How the chunks of a stream are sent."""

    media_type: str
    encode: Callable[[Struct], bytes]
    end: bytes = b""
    """Sent after the last chunk."""
    has_comments: bool = True
    """Whether comments may be sent while there are no chunks."""
    error_prefix: bytes = b"data: "
    """Precedes an error body that is sent as an event."""

    def encode_error(self, body: Struct) -> bytes:
        """Return the body of an error as a part of a stream that has begun."""
        if not self.error_prefix.startswith(b"event: "):
            return self.encode(body)
        return self.error_prefix + _json.encode(body) + b"\n\n"


DATA_EVENTS = Framing("text/event-stream", _data_event, b"data: [DONE]\n\n")
"""Server-sent events without a name, the last ``[DONE]``: OpenAI's Chat and Completions."""
NAMED_EVENTS = Framing("text/event-stream", _named_event, error_prefix=b"event: error\ndata: ")
"""Server-sent events with the tag of the chunk, or its field ``type``, as their name."""
JSON_LINES = Framing("application/x-ndjson", _line, has_comments=False)
"""One line of JSON for each chunk."""

ErrorBody = Callable[[int, ErrorInfo, str], Struct]
"""Returns the body of an error response from its status, the error, and the id of the request."""


def error_body(
    make: ErrorBody, framing: Framing = NAMED_EVENTS, *, request_id_header: str = ""
) -> Mapping[str, Any]:
    """Return the ``opt`` of a route handler with an error envelope of its own: all its errors have it.

    ``framing``: how its streams are sent. A stream that waits for its model may begin before the handler.
    ``request_id_header``: a header of all its responses that has the id, too, if clients do not read
    ``x-request-id``.
    """
    return {"error_body": make, "framing": framing, "request_id_header": request_id_header}


class Generation(Protocol):
    """A request that was read and checked. Nothing is generated until its outputs are read."""

    @property
    def model(self) -> str:
        """Name of the model for the response: that of its LoRA adapter, or the served name."""
        ...

    @property
    def created(self) -> int:
        """Unix time in seconds."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of all prompts."""
        ...

    @property
    def request(self) -> PipelineRequest: ...
    @property
    def record(self) -> RequestRecord:
        """Times and counts of the HTTP request, so far."""
        ...

    @property
    def includes_reasoning(self) -> bool:
        """Whether the outputs have `fllm.Reasoning`."""
        ...

    @property
    def role(self) -> str:
        """Role of the message that is generated."""
        ...

    @property
    def echo(self) -> str:
        """Text that the response begins with, because the request asks for it; else empty."""
        ...

    def outputs(self, *, streamed: bool = False) -> AsyncGenerator[list[SequenceOutput]]:
        """Reserve capacity at once, then generate as the outputs are read. Closing it aborts the generation.

        Each `fllm.ToolStart` has an id. Reasoning and calls that the request excludes are left out. Raise
        what the limits of the server and of the client raise, before the first output.
        """
        ...


class ResponseEncoder(Generic[Chunk]):
    """Base class of encoders: the one state machine for whole and streamed responses.

    The chunks of a request are those of `start`, of `feed` for each output, and of `finish`. A whole response
    is their `fold`.
    """

    @property
    def needs_tokens(self) -> bool:
        """Whether `feed` needs all tokens of an output, and not only those with log-probabilities."""
        return False

    def logprob_tokens(self, output: SequenceOutput) -> int:  # noqa: ARG002
        """Return the number of tokens whose log-probabilities `feed` would put into chunks."""
        return 0

    def convert_logprobs(self, output: SequenceOutput) -> Pieces[None]:  # noqa: ARG002
        """Encode the log-probabilities of an output in pieces, so that `feed` takes little time after it."""
        yield from ()

    def start(self) -> list[Chunk]:
        """Return the chunks that precede those of the first output."""
        return []

    def feed(self, output: SequenceOutput) -> list[Chunk]:
        """Return the chunks for an output. The list may be empty."""
        raise NotImplementedError

    def finish(self) -> list[Chunk]:
        """Return the chunks that follow those of the last output."""
        return []

    def fold(self, chunks: Sequence[Chunk]) -> Struct:
        """Merge the chunks into the whole response, as a client does with a stream."""
        raise NotImplementedError

    def error(self, error: ErrorInfo) -> Sequence[Struct]:
        """Return the last chunks of a stream that fails after it has begun."""
        raise NotImplementedError


class Client(Struct, frozen=True):
    """Who sends a request: the parameter ``client`` of a route handler, which needs no model."""

    name: str
    """By which limits and fairness hold."""
    owner: str
    """Who owns what the request stores; the same after a restart. Empty if the server has no keys."""
    sees_all: bool = False
    """Whether it may see requests of others: it has an admin key (`ADMIN_TOO`), or the server has no keys."""


@runtime_checkable
class Serving(Protocol):
    """The server, for one request: the parameter ``server`` of a route handler.

    If the client disconnects, the methods end with an error that the handler does not catch.
    """

    @property
    def card(self) -> ModelCard: ...
    @property
    def backend(self) -> Backend: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def template(self) -> ChatTemplate | None:
        """``None``: the model has no chat template, and chat requests get 400."""
        ...

    @property
    def served_model_name(self) -> str:
        """The name of the model in responses."""
        ...

    @property
    def request_id(self) -> str:
        """Id of the request, in logs and in the header ``x-request-id``."""
        ...

    @property
    def client(self) -> str:
        """Name of the client, by which limits and fairness hold."""
        ...

    @property
    def owner(self) -> str:
        """Who owns what the request stores; the same after a restart. Empty if the server has no keys."""
        ...

    async def prepare(self, work: Pieces[T], *, slow: bool = False) -> T:
        """Return the result of work in pieces, and charge the client for the tokens that it yields.

        Work on a large body, and ``slow`` work, runs in a thread in which clients take turns.
        """
        ...

    async def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text that may exceed the context.

        Raise `fllm.errors.ContextTooLong` if it does by far: that would take too much memory.
        """
        ...

    async def render_chat(self, request: ChatRequest) -> str:
        """Return the text of the prompt. Raise `RequestError` if the chat template rejects the request."""
        ...

    async def tokenize_chat(self, request: ChatRequest) -> list[int]:
        """Return the token ids of the prompt. Raise `RequestError` as `render_chat` and `tokenize`."""
        ...

    async def read_chat(self, request: ChatRequest, *, allowed_counts: bool = False) -> Generation:
        """Return the generation for a chat. Raise `RequestError` if the request is invalid.

        With ``allowed_counts``, tokens of its outputs have `OutputToken.allowed`, if the engine reports it.
        """
        ...

    async def read_completion(self, request: CompletionRequest) -> Generation:
        """Return the generation for a text to continue. Raise `RequestError` if the request is invalid."""
        ...

    async def whole(self, generation: Generation) -> list[SequenceOutput]:
        """Generate, and return one output with all events for each sequence."""
        ...

    def respond(
        self,
        generation: Generation,
        encoder: ResponseEncoder[Any],
        *,
        stream: bool,
        framing: Framing = NAMED_EVENTS,
        on_end: OnEnd | None = None,
    ) -> Any:
        """Reserve capacity, and return the response of the handler: it generates when it is sent.

        The handler's annotation is `litestar.response.base.ASGIResponse`. ``on_end`` is awaited exactly once,
        before the last bytes are sent. If it raises, the response fails.
        Raise what the limits raise.
        """
        ...

    def stream(self, chunks: AsyncGenerator[Sequence[Struct]], framing: Framing = NAMED_EVENTS) -> Any:
        """Return the response of the handler: a stream of these chunks, which come from elsewhere.

        It no longer counts against the limits. The generator is closed if the client disconnects.
        """
        ...

    async def pool(
        self,
        inputs: list[PoolingInput],
        *,
        dimensions: int | None = None,
        activation: bool | None = None,
        priority: int = 0,
    ) -> PoolingOutput:
        """Return one vector for each input; see `fllm.PoolingRequest`.

        Raise `RequestError` if the model does not pool, or what the limits of the client raise.
        """
        ...


class InternalResponse(Struct, frozen=True):
    """The response to a request that a plugin made itself."""

    status: int
    body: bytes
    request_id: str = ""
    """Its ``x-request-id``."""


class RunningServer(Protocol):
    """The server, for work that outlives a request."""

    async def call(
        self, method: str, path: str, body: bytes, *, client: str, owner: str = "", priority: int = 0
    ) -> InternalResponse:
        """Return the response to a request of this client, as if it came over HTTP, but without its key.

        Limits, metrics, traces and the access log hold. ``priority`` is added to that of the request: a
        larger number waits longer.
        """
        ...

    def start(
        self,
        work: Callable[[Serving], Awaitable[None]],
        *,
        client: str,
        path: str,
        owner: str = "",
        model: str | None = None,
    ) -> asyncio.Task[None]:
        """Start work that generates for this client, as a request for ``path`` and ``model``.

        It waits while the client or the server is at its limits. When the server stops, the work has the
        time of a request to end; then `fllm.BackendUnavailable` is raised in it.
        """
        ...


class _NoServer:
    """Stands for the server where none runs."""

    async def call(self, *_: Any, **__: Any) -> InternalResponse:
        """Raise `RuntimeError`."""
        raise RuntimeError("no server is running")

    def start(self, *_: Any, **__: Any) -> asyncio.Task[None]:
        """Raise `RuntimeError`."""
        raise RuntimeError("no server is running")


class RoutesContext(Struct, frozen=True, kw_only=True):
    """Input of the hook `fllm_routes`. The defaults are for checks, without a server."""

    server: RunningServer = _NoServer()
    """For work that outlives a request; not available before the server has started."""
    data_dir: Callable[[], Path | None] = lambda: None
    """Returns the private directory for what the server stores, or ``None`` if it has none."""
    lifespan: Callable[[Callable[[], AbstractAsyncContextManager[None]]], None] = lambda _: None
    """Takes what opens resources: a context manager from the start of the server until it has stopped."""
    collect: Callable[[Collector], None] = lambda _: None
    """Takes a collector that observes the requests of this server, as one of the hook `fllm_collectors`."""
    describe: Callable[[], ServerDescription] = ServerDescription
    """Returns a description of the server. Before it has started, models may be missing."""
    options: Any = None
    """Options of the plugin: a value of its ``FLLM_OPTIONS``, or ``None`` if it declares none."""
