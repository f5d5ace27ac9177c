"""Requests and responses of `/api/chat` and `/api/generate`. Unknown fields are ignored, as Ollama does."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from fllm import ChatTool

MAX_INT = 2**31 - 1
Penalty = Annotated[float, Meta(ge=-2, le=2)]
TopLogprobs = Annotated[int, Meta(ge=0, le=20)]
StopString = Annotated[str, Meta(min_length=1, max_length=1024)]


class Options(Struct, frozen=True, kw_only=True):
    """The options that have an effect. The model's recommended values replace Ollama's own defaults."""

    num_predict: Annotated[float, Meta(ge=-(2**53), le=2**53)] | None = None
    """Maximum number of output tokens. 0 and negative numbers mean no maximum."""
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_k: Annotated[float, Meta(ge=-1, le=MAX_INT)] | None = None
    """A whole number, which some clients send as 40.0. 0 and -1 keep all tokens."""
    top_p: Annotated[float, Meta(ge=0)] | None = None
    """1 and more keep all tokens."""
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[float, Meta(ge=-(2**63), le=2**63)] | None = None
    """A whole number, exact up to 2**53. Negative numbers mean another seed for each request."""
    stop: str | Annotated[list[StopString], Meta(max_length=64)] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0, le=100)] | None = None
    """0 means no penalty. It applies to all tokens, whatever ``repeat_last_n``."""
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None


class OllamaRequest(Struct, frozen=True, kw_only=True):
    """Fields of both endpoints."""

    model: str
    stream: bool | None = None
    """True by default."""
    format: dict[str, Any] | Literal["", "json"] | None = None
    """"json" for a JSON object, or a JSON Schema."""
    options: Options | None = None
    think: bool | str | None = None
    """Whether to reason, or how much: "low", "medium", "high"."""
    keep_alive: Any = None
    """No effect: models are unloaded as the options of the server say."""
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None


class CalledFunction(Struct, frozen=True, omit_defaults=True):
    """Name of the function, and the arguments as an object."""

    name: str
    arguments: dict[str, Any]
    index: int | None = None
    """Place of the call among those of the message."""


class OllamaToolCall(Struct, frozen=True, omit_defaults=True):
    """A call of a function."""

    function: CalledFunction
    id: str | None = None


class OllamaMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message of a conversation."""

    role: Annotated[str, Meta(min_length=1, max_length=64)]
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    """Image files in base64."""
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: str | None = None
    """Function whose result the message is."""
    tool_call_id: str | None = None


class OllamaChatRequest(OllamaRequest, frozen=True, kw_only=True):
    """Body of `/api/chat`."""

    messages: list[OllamaMessage] | None = None
    """Without messages, the model is only loaded."""
    tools: list[ChatTool] | None = None


class OllamaGenerateRequest(OllamaRequest, frozen=True, kw_only=True):
    """Body of `/api/generate`."""

    prompt: str | None = None
    """Without a prompt, the model is only loaded."""
    suffix: str | None = None
    """Text after the response, for a model that fills in the middle."""
    images: list[str] | None = None
    system: str | None = None
    raw: bool | None = None
    """Whether the prompt is complete: neither the chat template nor a system message is added."""
    template: str | None = None
    context: list[int] | None = None


class OllamaTopLogprob(Struct, frozen=True):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class OllamaLogprob(Struct, frozen=True):
    """A generated token, and the most likely tokens at its position."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[OllamaTopLogprob] = []


class OllamaChunk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Fields of the responses of both endpoints. The last chunk is ``done`` and has statistics."""

    model: str
    created_at: str
    """Time of the chunk, as RFC 3339 has it."""
    done: bool
    done_reason: str | None = None
    """``stop``, ``length``, or ``load`` and ``unload`` for a request without a prompt."""
    total_duration: int | None = None
    """Nanoseconds, like all durations."""
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    """Tokens of the prompt, those of the prefix cache included."""
    prompt_eval_duration: int | None = None
    """From the start of the generation to its first output."""
    eval_count: int | None = None
    """Tokens of the output."""
    eval_duration: int | None = None
    logprobs: list[OllamaLogprob] | None = None


class OllamaChatChunk(OllamaChunk, frozen=True, kw_only=True, omit_defaults=True):
    """Response of `/api/chat`, or one line of its stream."""

    message: OllamaMessage


class OllamaGenerateChunk(OllamaChunk, frozen=True, kw_only=True, omit_defaults=True):
    """Response of `/api/generate`, or one line of its stream."""

    response: str
    thinking: str | None = None


class OllamaError(Struct, frozen=True):
    """The body of every error, and the line with which a stream ends that fails."""

    error: str
