"""Interfaces that plugins implement: parsers, backends, chat templates, collectors, routes.

Most are Protocols, so a plugin needs no base class. The contract of parsers: any division of the same text
into pieces gives the same merged events.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from msgspec import Struct, field
from msgspec.structs import replace

from fllm.config import BackendConfig, LoraAdapter, MetricsConfig, PluginConfig
from fllm.constraints import Constraint
from fllm.containment import mapped
from fllm.drafter import DrafterFactory
from fllm.errors import ConfigError, FllmError
from fllm.events import ParserEvent
from fllm.plugin_usage import PluginUsage, UsageMeter
from fllm.structured_output.interfaces import GrammarFactory
from fllm.structured_output.tool_format import ToolFormat
from fllm.values import (
    CacheChanges,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    ModelCard,
    PoolingOutput,
    PoolingRequest,
    PreparedImages,
    Progress,
    ReasoningLimit,
    ReplicaStats,
    Tool,
)

if TYPE_CHECKING:
    from fllm.engine_host import EngineHost


T = TypeVar("T")


class ParserContext(Struct, frozen=True, kw_only=True):
    """The parts of a request that its parsers may read."""

    prompt: str = ""
    """Rendered prompt. The chat template may have opened or closed the reasoning already."""
    tools: tuple[Tool, ...] = ()
    template_kwargs: Mapping[str, Any] = {}
    """``chat_template_kwargs`` of the request, such as ``enable_thinking``."""
    continued_message: str | None = None
    """Text of the final message if the output continues it."""
    auto_selected: bool = False
    """Whether ``auto`` selected the reasoning parser from the chat template."""
    constrained: bool = False
    """The output is generated under the constraint that `ConstrainsOutput.constrain_output` returns."""
    options: Any = None
    """Options of the plugin: a value of its ``FLLM_OPTIONS``, or ``None`` if it declares none."""


class Parser(Protocol):
    """Turns the text of one generated sequence into events; each sequence gets a new parser.

    A reasoning parser emits `Reasoning` and `Text`. A tool-call parser is fed the remaining text and emits
    `Text`, `ToolStart` and `ToolArguments`. Optional abilities, checked when the parser is loaded:

    - of the factory (the parser's class): `HasVisibleTokens`, `HasToolFormat`, `MakesCallIds`;
    - of a reasoning parser: `ConstrainsOutput`, `LimitsReasoning`.
    """

    def feed(self, text: str, /) -> Iterable[ParserEvent]:
        """Parse the next piece of text; return the events that are now certain."""
        ...

    def finish(self) -> Iterable[ParserEvent]:
        """End the text; return the events of what was held back."""
        ...


ParserFactory = Callable[[ParserContext], Parser]

EVERY_SPECIAL_TOKEN = "*"
"""In `HasVisibleTokens.visible_tokens`: the parser receives all special tokens."""


@runtime_checkable
class HasVisibleTokens(Protocol):
    """A parser class that reads special tokens."""

    @property
    def visible_tokens(self) -> Sequence[str]:
        """Special tokens that reach the parser as text even if the request skips special tokens.

        `EVERY_SPECIAL_TOKEN` stands for all of them.
        """
        ...


@runtime_checkable
class HasToolFormat(Protocol):
    """A tool-call parser class that declares how the model writes its calls, for constrained decoding."""

    @property
    def tool_format(self) -> ToolFormat | None:
        """Format of the calls that the parser reads; ``None`` if it can't be described."""
        ...


@runtime_checkable
class MakesCallIds(Protocol):
    """A tool-call parser class whose models' chat templates accept only ids of their own format."""

    @staticmethod
    def new_call_id() -> str:
        """Return an id for a call to which the model gave none."""
        ...


@runtime_checkable
class ConstrainsOutput(Protocol):
    """A reasoning parser that supports constrained decoding."""

    def constrain_output(self, content: Constraint) -> Constraint:
        """Return the constraint of a whole output, reasoning included, whose content obeys ``content``.

        Called before `Parser.feed`, on a parser made with `ParserContext.constrained`. Must not change the
        parser.
        """
        ...


@runtime_checkable
class LimitsReasoning(Protocol):
    """A reasoning parser that supports a maximum of reasoning tokens."""

    def limit_reasoning(self, max_tokens: int) -> ReasoningLimit | None:
        """Return the limit for the output that this parser will parse; ``None`` if it has no reasoning.

        Called before `Parser.feed`. Must not change the parser.
        """
        ...


class LoadedParser(Struct, frozen=True, kw_only=True):
    """A parser that was loaded by name, with its optional abilities, checked. Calling it makes a parser."""

    factory: ParserFactory
    name: str = ""
    """The name by which it was loaded."""
    visible_tokens: tuple[str, ...] = ()
    report: Callable[[BaseException], BaseException] = lambda error: error
    """Reports an error of the parser, and returns it with a note that names the plugin."""
    options: Any = None
    """Options of the plugin, for `ParserContext.options`."""
    meter: UsageMeter = field(default_factory=UsageMeter)
    """Counts the usage of the parser."""

    def __call__(self, context: ParserContext) -> Parser:
        """Return a new parser for one generated sequence."""
        if self.options is not None:
            context = replace(context, options=self.options)
        with mapped(self.report, passing=(FllmError,)):
            return self.factory(context)


class LoadedToolParser(LoadedParser, frozen=True, kw_only=True):
    """A tool-call parser that was loaded by name."""

    tool_format: ToolFormat | None = None
    """``None``: the parser does not declare how calls are written."""
    new_call_id: Callable[[], str] | None = None
    """``None``: the server makes the ids."""


def _new_engine_host() -> EngineHost:
    from fllm.engine_host import EngineHost  # imports asyncio, which a command that answers at once avoids

    return EngineHost()


class EngineObserver(Protocol):
    """Observes one engine, for a backend that sends requests to several. Called on the event loop."""

    def on_ready(self, node: str) -> None:
        """Record that the engine serves requests, with an empty prefix cache.

        ``node``: name of the machine on which it runs; empty if it is unknown.
        """
        ...

    def on_exit(self) -> None:
        """Record that the engine has ended. Its requests fail after this."""
        ...

    def on_cache_change(self, changes: CacheChanges) -> None:
        """Record which blocks the prefix cache has gained and lost, before the outputs of the same step."""
        ...


class BackendContext(Struct, frozen=True, kw_only=True):
    """What the server provides to a backend."""

    progress: Callable[[Progress], None] = lambda progress: None  # noqa: ARG005
    """Reports progress while the model loads. May be called from any thread."""
    plugins: PluginConfig = PluginConfig()
    """Configuration with which another process loads the same plugins."""
    load_grammar: Callable[[str], GrammarFactory] | None = None
    """Imports a grammar backend by name, or raises `PluginError`. ``None``: none is available."""
    load_drafter: Callable[[str], DrafterFactory] | None = None
    """Imports a drafter by name, or raises `PluginError`. ``None``: none is available."""
    engine_host: EngineHost = field(default_factory=_new_engine_host)
    """Starts the processes of engines, through placements. All backends of a server share one."""
    load_backend: Callable[[str], BackendFactory] | None = None
    """Imports a backend by name, or raises `PluginError`, for one that wraps others in the same process."""
    observer: EngineObserver | None = None
    """Receives events of the engine; ``None``: nobody needs them."""
    options: Any = None
    """Options of the plugin: a value of its ``FLLM_OPTIONS``, or ``None`` if it declares none."""


class Backend(Protocol):
    """An engine for one model. All methods are called on one event loop.

    The interface is wide enough for a complete third-party engine. A device needs less: see `fllm.batching`.
    Optional ability: `ServesAdapters`.
    """

    async def start(self) -> ModelCard:
        """Load the model and return its card. Raise `UserError` for what the operator can fix."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        """Continue one prompt until an output with a ``finish_reason``. Closing the generator aborts it.

        Raise `RequestError` for what the client can fix, `BackendError` if the engine fails.
        """
        ...

    async def status(self) -> EngineStats:
        """Return the engine's statistics. Raise `BackendUnavailable` if the engine is not healthy."""
        ...

    async def stop(self) -> None:
        """Release all resources. Sequences in flight end with `BackendUnavailable`."""
        ...


@runtime_checkable
class PreparesImages(Protocol):
    """A backend whose models may take images, as `ModelCard.images` says."""

    async def prepare_images(self, images: Sequence[bytes], client: str) -> PreparedImages:
        """Decode the image files of one prompt and prepare them for the model.

        ``client`` is a `GenerateRequest.client`. Raise `RequestError` for a file that is not an image, or
        that is too large.
        """
        ...


@runtime_checkable
class DrainsReplicas(Protocol):
    """A backend of several replicas, as `EngineStats.replicas` says, which can be drained for maintenance."""

    def list_replicas(self) -> Sequence[ReplicaStats]:
        """Return what is known about each replica, without asking it."""
        ...

    def drain_replica(self, name: str) -> ReplicaStats:
        """Send no more requests to a replica. Return its state; it is ``drained`` once it has none.

        Raise `RequestError` if there is no replica of this name.
        """
        ...

    def resume_replica(self, name: str) -> ReplicaStats:
        """Send requests to a replica again, and return its state. Raise the same error."""
        ...


NO_ADAPTERS = "this backend can't apply LoRA adapters"


@runtime_checkable
class ServesAdapters(Protocol):
    """A backend that serves LoRA adapters next to the model itself, chosen by `GenerateRequest.adapter`.

    `Backend.start` loads those of `BackendConfig.lora_modules`.
    """

    async def load_adapter(self, adapter: LoraAdapter) -> None:
        """Load an adapter while the engine runs.

        Raise `UserError` if it is invalid or there are too many, `BackendUnavailable` if the engine stops.
        """
        ...

    async def unload_adapter(self, adapter_id: int) -> None:
        """Reject new requests with this adapter, and free its memory once those in flight have ended.

        Raise `ModelNotFound` if it is not loaded.
        """
        ...


def check_adapters(backend: Backend, config: BackendConfig) -> None:
    """Raise `ConfigError` if adapters are enabled and the backend can't serve them."""
    if config.enable_lora and not isinstance(backend, ServesAdapters):
        raise ConfigError(f"--enable-lora, --lora-modules: {NO_ADAPTERS}")


BackendFactory = Callable[[BackendConfig, BackendContext], Backend]


@runtime_checkable
class PoolingBackend(Protocol):
    """A backend whose model may have a `ModelCard.pooling`: it returns vectors instead of text."""

    async def pool(self, request: PoolingRequest) -> PoolingOutput:
        """Return one vector for each input. Cancelling the call aborts the request.

        Raise `RequestError` for what the client can fix, `BackendError` if the engine fails.
        """
        ...


class TemplateContext(Struct, frozen=True, kw_only=True):
    """Input of a chat-template resolver."""

    card: ModelCard
    file: Path | None = None
    """File of ``--chat-template``, if given."""
    options: Any = None
    """Options of the plugin: a value of its ``FLLM_OPTIONS``, or ``None`` if it declares none."""


class RequestRecord(Protocol):
    """Read-only view of a request for collectors: times (`time.monotonic`, seconds) and counts (tokens).

    Values that are not known yet are `None`, 0 or empty.
    """

    @property
    def request_id(self) -> str:
        """``x-request-id``: the client's own, or a new one. Not unique: do not use it as a key."""
        ...

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def client(self) -> str:
        """``key:`` and a part of the key's hash, or ``ip:`` and the address. Final when the request ends."""
        ...

    @property
    def trace_context(self) -> Mapping[str, str]:
        """The headers ``traceparent`` and ``tracestate``, if the client sent them."""
        ...

    @property
    def status(self) -> int | None:
        """Status code of the response, once it has started."""
        ...

    @property
    def received_at(self) -> float: ...
    @property
    def submitted_at(self) -> float | None:
        """When the request was sent to the engine."""
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
        """Prompt tokens found in the prefix cache."""
        ...

    @property
    def generated_tokens(self) -> int: ...
    @property
    def max_tokens(self) -> int | None: ...
    @property
    def n(self) -> int:
        """Number of outputs per prompt."""
        ...

    @property
    def streamed(self) -> bool: ...
    @property
    def model(self) -> str:
        """Name of the model that the request uses, on a server that loads models on demand; else empty.

        Empty, too, if the request names none of its models.
        """
        ...

    @property
    def adapter(self) -> str:
        """Name of the LoRA adapter that generates; empty for the model itself."""
        ...

    @property
    def replicas(self) -> tuple[str, ...]:
        """Names of the replicas that have generated, in order; empty if there is one engine."""
        ...

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """For each ended sequence: ``stop``, ``length``, ``tool_calls``, ``abort`` or ``error``."""
        ...

    @property
    def error(self) -> str | None: ...
    @property
    def error_code(self) -> str | None:
        """Code of the error in the response, such as ``model_not_found``, if it has one."""
        ...


class Collector:
    """Base class of metrics collectors: override what you need.

    A collector observes requests and changes nothing. All methods are called on the event loop and must not
    block.
    """

    def on_request_start(self, request: RequestRecord) -> None:
        """Record that a generation request has arrived; nothing of its body has been read.

        A server that loads models on demand calls it once `RequestRecord.model` is known.
        """

    def on_first_token(self, request: RequestRecord) -> None:
        """Record that the prefill of a request is done and its first token was generated."""

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        """Record ``tokens`` more tokens and the seconds between the steps that generated them.

        Called at most once per second and request, and before `on_request_end`; never once per token.
        """

    def on_request_end(self, request: RequestRecord) -> None:
        """Record the end of a generation request; ``request.error`` is set if it failed."""

    def on_http_request_end(self, request: RequestRecord) -> None:
        """Record the end of an HTTP request of any route; called after `on_request_end`.

        Not called for `/health`, `/ready` and `/metrics`.
        """

    def on_interval(self, stats: EngineStats | None) -> None:
        """Record the state of the engine, about once per second; ``None`` if its status check failed."""


class MetricsPage(Struct, frozen=True):
    """A page for a scraper."""

    content_type: str
    body: bytes


@runtime_checkable
class MetricsExporter(Protocol):
    """A collector that can be scraped at `/metrics`."""

    def expose(self, status: EngineStats | None, accept: str) -> MetricsPage:
        """Return the page in the best format of ``accept``. ``status`` is `None` if the check failed."""
        ...


class MetricsContext(Struct, frozen=True, kw_only=True):
    """Input of the hook `fllm_collectors`."""

    model_name: str
    """The served model name, for the label ``model_name``: the first one if there are several models."""
    max_model_len: int
    model_names: tuple[str, ...] = ()
    """The models of a server that loads them on demand, as in `RequestRecord.model`."""
    config: MetricsConfig = MetricsConfig()
    plugin_usage: Callable[[], Sequence[PluginUsage]] = lambda: ()
    """Returns what each part of the plugins has cost since the server started."""
    options: Any = None
    """Options of the plugin: a value of its ``FLLM_OPTIONS``, or ``None`` if it declares none."""
