"""The body of `/v2/chat`. A value beyond a limit is a 400 that names the field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from fllm import ImageUrl

Penalty = Annotated[float, Meta(ge=0, le=1)]
MAX_STOP_SEQUENCES = 5


class TextPart(Struct, frozen=True, tag="text"):
    """A text."""

    text: str


class ThinkingPart(Struct, frozen=True, tag="thinking"):
    """The reasoning of an earlier message."""

    thinking: str


class ImagePart(Struct, frozen=True, tag="image_url"):
    """An image, for models that take some."""

    image_url: ImageUrl


class DocumentPart(Struct, frozen=True, tag="document"):
    """The result of a tool, as a document."""

    document: dict[str, Any]


class Function(Struct, frozen=True):
    """A call of a function; the arguments are JSON text."""

    name: str
    arguments: str = ""


class ToolCall(Struct, frozen=True, tag="function"):
    """A call that the model made."""

    id: str
    function: Function


class SystemMessage(Struct, frozen=True, tag_field="role", tag="system"):
    """An instruction."""

    content: str | list[TextPart]


class UserMessage(Struct, frozen=True, tag_field="role", tag="user"):
    """What a person writes."""

    content: str | list[TextPart | ImagePart]


class AssistantMessage(Struct, frozen=True, tag_field="role", tag="assistant"):
    """What the model wrote before."""

    content: str | list[TextPart | ThinkingPart] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_plan: str | None = None


class ToolMessage(Struct, frozen=True, tag_field="role", tag="tool"):
    """The result of a call."""

    tool_call_id: str
    content: str | list[TextPart | DocumentPart]


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage


class FunctionDeclaration(Struct, frozen=True):
    """A function that the model may call."""

    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Struct, frozen=True, tag="function"):
    """A tool; only functions exist."""

    function: FunctionDeclaration


class TextResponse(Struct, frozen=True, tag="text"):
    """Any text."""


class JsonResponse(Struct, frozen=True, tag="json_object"):
    """A JSON object, which matches the schema if there is one."""

    json_schema: dict[str, Any] | None = None


class Thinking(Struct, frozen=True):
    """Whether the model reasons, and for how many tokens at most."""

    type: Literal["enabled", "disabled"]
    token_budget: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None


class CohereRequest(Struct, frozen=True, kw_only=True):
    """A request of version 2 of the API."""

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool = False
    tools: list[Tool] | None = None
    tool_choice: Literal["REQUIRED", "NONE"] | None = None
    strict_tools: bool | None = None
    response_format: TextResponse | JsonResponse | None = None
    thinking: Thinking | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    stop_sequences: (
        Annotated[
            list[Annotated[str, Meta(min_length=1, max_length=1024)]], Meta(max_length=MAX_STOP_SEQUENCES)
        ]
        | None
    ) = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    k: Annotated[int, Meta(ge=0, le=500)] | None = None
    p: Annotated[float, Meta(ge=0.01, le=0.99)] | None = None
    documents: list[Any] | None = None
    logprobs: bool | None = None
