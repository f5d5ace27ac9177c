"""What a plugin implements: structural types, so that a plugin needs no base class of ours.

A **stage** turns pieces of text into events with ``feed`` and is closed with ``finish``. The law of parsers:
however the same text is divided into pieces, the merged events are the same.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from msgspec import Struct

from fllm.config import BackendConfig, MetricsConfig, PluginConfig
from fllm.events import ParserEvent
from fllm.values import EngineOutput, EngineStats, GenerateRequest, ModelCard, Progress, Tool

if TYPE_CHECKING:
    from fllm.chat import ChatTemplate
    from fllm.tokenizer import Tokenizer


class ParserContext(Struct, frozen=True, kw_only=True):
    """What a parser may know of its request, at the moment it is made."""

    prompt: str = ""
    """The rendered prompt; a template may have opened or closed the thinking itself."""
    tools: tuple[Tool, ...] = ()
    template_kwargs: Mapping[str, Any] = {}
    """``chat_template_kwargs`` of the request, such as ``enable_thinking``."""


class Parser(Protocol):
    """A stage made anew for each answer: a reasoning parser or a tool-call parser.

    A reasoning parser emits `Reasoning` and `Text`; a tool-call parser is fed the remaining text and emits
    `Text`, `ToolStart` and `ToolArguments`. Special tokens named in the class attribute ``visible_tokens``,
    where there is one, reach the parser as text even when the request skips special tokens.

    Calls to which the model gave no id get one of the tool-call parser's static method
    ``new_call_id() -> str``, where it has one: some chat templates take only ids of their own kind.

    For constrained decoding, a tool-call parser may have the class attribute ``format``, a `ToolFormat`: how
    the model writes the calls that it reads. A reasoning parser may have a method
    ``constrain_output(answer: Constraint) -> Constraint``, called before `feed`: the language of a whole
    output, reasoning included, whose answer obeys that constraint.
    """

    def feed(self, text: str) -> Iterable[ParserEvent]:
        """Take the next piece; give what is now certain."""
        ...

    def finish(self) -> Iterable[ParserEvent]:
        """No more will come: give what was held back."""
        ...


ParserFactory = Callable[[ParserContext], Parser]


class BackendContext(Struct, frozen=True, kw_only=True):
    """What a backend may use of the house around it."""

    progress: Callable[[Progress], None] = lambda progress: None  # noqa: ARG005
    """Told while the model loads; may be called from any thread."""
    plugins: PluginConfig = PluginConfig()
    """How to find the same plugins again, in another process."""


class Backend(Protocol):
    """An engine for one model: wide enough for a whole foreign engine, and no wider.

    All methods are called on one event loop.
    """

    async def start(self) -> ModelCard:
        """Load the model and be ready; raises `UserError` where the user can mend it."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Continue one prompt until a step with ``finish``; closing the generator aborts the sequence.

        Raises `RequestError` for what the client can mend, `BackendError` where the engine fails.
        """
        ...

    async def status(self) -> EngineStats:
        """Answer if the engine is well; raises `BackendUnavailable` if it is not."""
        ...

    async def stop(self) -> None:
        """Release everything; sequences in flight end with `BackendUnavailable`."""
        ...


BackendFactory = Callable[[BackendConfig, BackendContext], Backend]


class TemplateContext(Struct, frozen=True, kw_only=True):
    """What a chat-template resolver may look at."""

    card: ModelCard
    file: Path | None = None
    """``--chat-template``, where given."""


class RequestRecord(Protocol):
    """What collectors may read of a request: its times (`time.monotonic`, seconds) and counts (tokens).

    What is not known yet is `None`, 0 or empty.
    """

    @property
    def request_id(self) -> str:
        """``x-request-id``: the client's own, or one that was made. It may repeat: key nothing by it."""
        ...

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def client(self) -> str:
        """``key:`` and a part of the key's hash, or ``ip:`` and the address; at the end of the request."""
        ...

    @property
    def trace_context(self) -> Mapping[str, str]:
        """The headers ``traceparent`` and ``tracestate``, where they came."""
        ...

    @property
    def status(self) -> int | None:
        """Of the answer, once it has begun."""
        ...

    @property
    def received_at(self) -> float: ...
    @property
    def submitted_at(self) -> float | None:
        """When it had been read and went to the engine."""
        ...

    @property
    def first_token_at(self) -> float | None: ...
    @property
    def finished_at(self) -> float | None: ...
    @property
    def queue_time(self) -> float:
        """Seconds in the engine before the first prefill."""
        ...

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int:
        """Those of the prompt that were found in the prefix cache."""
        ...

    @property
    def generated_tokens(self) -> int: ...
    @property
    def max_tokens(self) -> int | None: ...
    @property
    def answers(self) -> int:
        """To each prompt: ``n``."""
        ...

    @property
    def streamed(self) -> bool: ...
    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """Of each sequence that has ended: ``stop``, ``length``, ``tool_calls``, ``abort``, ``error``."""
        ...

    @property
    def error(self) -> str | None: ...


class Collector(Protocol):
    """Observes requests; changes nothing. All methods are called on the event loop and must not block."""

    def received(self, request: RequestRecord) -> None:
        """A request has arrived; nothing of it has been read yet."""
        ...

    def started(self, request: RequestRecord) -> None:
        """Its prefill is done and the first token is here."""
        ...

    def progressed(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        """So many tokens more, and the seconds between the steps that brought them.

        Called at most once a second for each request, and before `finished`: never once a token.
        """
        ...

    def finished(self, request: RequestRecord) -> None:
        """It is over; ``error`` says whether it failed."""
        ...


class MetricsPage(Struct, frozen=True):
    """A page for a scraper."""

    content_type: str
    body: bytes


@runtime_checkable
class MetricsExporter(Protocol):
    """A collector that can be scraped at `/metrics`."""

    def expose(self, status: EngineStats | None, accept: str) -> MetricsPage:
        """The page, in the best format that ``accept`` allows; ``status`` is the backend's, if it answers."""
        ...


@runtime_checkable
class Ticking(Protocol):
    """A collector that wants to be called about once a second while the server runs."""

    def tick(self, status: EngineStats | None) -> None:
        """``status`` is the backend's, if it answers."""
        ...


@runtime_checkable
class Auditing(Protocol):
    """A collector that wants to hear of every request, also of those that ask for no tokens.

    Not of `/health`, `/ready` and `/metrics`, nor of what no route answers.
    """

    def answered(self, request: RequestRecord) -> None:
        """It is over; told after `Collector.finished` of the requests of which collectors hear."""
        ...


class MetricsContext(Struct, frozen=True, kw_only=True):
    """What a collector is made from."""

    model_name: str
    """The served name: the label ``model_name``."""
    max_model_len: int
    config: MetricsConfig = MetricsConfig()


@runtime_checkable
class Serving(Protocol):
    """The server, as a plugin's route handler is given it that has a parameter ``server``."""

    @property
    def card(self) -> ModelCard: ...
    @property
    def backend(self) -> Backend: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def template(self) -> ChatTemplate | None:
        """``None``: chat answers 400."""
        ...
