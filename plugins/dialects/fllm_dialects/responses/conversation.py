"""Turn the items of a conversation into the messages of a chat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct, field

from fllm import ChatMessage, ContentPart, FunctionCall, ImageUrl, RequestError, ToolCall
from fllm_dialects.responses.ids import shown
from fllm_dialects.responses.protocol.items import InputItem, InputPart
from fllm_dialects.responses.tools import CUSTOM_ARGUMENT, chat_name

_ROLES = ("user", "assistant", "system", "developer")
_TEXT_PARTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")


class _Turn(Struct):
    """What the model generated in one turn: reasoning, then a text, then calls."""

    reasoning: list[str] = field(default_factory=list[str])
    content: str | list[ContentPart] | None = None
    calls: list[ToolCall] = field(default_factory=list[ToolCall])

    def message(self) -> ChatMessage:
        """Return all of it as one message."""
        return ChatMessage(
            role="assistant",
            content=self.content,
            reasoning_content="\n".join(self.reasoning) or None,
            tool_calls=self.calls or None,
        )


class Conversation:
    """Collects messages, and where each of them is in the request."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        """Path in the request by the path in the chat."""
        self._messages: list[ChatMessage | _Turn] = []
        self._functions: dict[str, str] = {}
        """Name of the called function by the id of its call."""

    @property
    def messages(self) -> list[ChatMessage]:
        """The messages of the chat."""
        return [each.message() if isinstance(each, _Turn) else each for each in self._messages]

    def add_instructions(self, text: str) -> None:
        """Add the instructions as the system message."""
        self._append(ChatMessage(role="system", content=text), "instructions")

    def add_text(self, text: str) -> None:
        """Add an input that is one string."""
        self._append(ChatMessage(role="user", content=text), "input")
        self._name("content", "input")

    def add(self, items: Iterable[InputItem], path: str = "input[{}]") -> None:
        """Add items; ``path`` has a place for the index of each. Raise `RequestError` for an invalid one."""
        for index, item in enumerate(items):
            self._add_item(item, path.format(index))

    def _add_item(self, item: InputItem, path: str) -> None:
        match item.type:
            case "message" | None:
                self._add_message(item, path)
            case "function_call" | "custom_tool_call":
                self._add_call(item, path)
            case "function_call_output" | "custom_tool_call_output":
                self._add_output(item, path)
            case "reasoning":
                if text := _reasoning(item, path):
                    self._turn(path, only_after_reasoning=True).reasoning.append(text)
            case "item_reference":
                raise RequestError(f"`{path}`: there is no item {shown(item.id)}", param=f"{path}.id")
            case _:
                raise RequestError(
                    f"items of type {item.type!r} are not supported",
                    param=f"{path}.type",
                    code="unsupported_parameter",
                )

    def _add_message(self, item: InputItem, path: str) -> None:
        if not isinstance(item.role, str) or item.role not in _ROLES:
            raise RequestError(
                f"`{path}.role` must be one of {', '.join(_ROLES)}; it is {item.role or 'missing'}",
                param=f"{path}.role",
            )
        if not isinstance(item.content, str | list):
            raise RequestError(f"`{path}.content` is missing", param=f"{path}.content")
        content = read_content(item.content, f"{path}.content")
        if item.role == "assistant":
            self._turn(path, only_after_reasoning=True).content = content
            self._name("content", f"{path}.content")
        else:
            self._append(ChatMessage(role=item.role, content=content), path)

    def _add_call(self, item: InputItem, path: str) -> None:
        is_function = item.type == "function_call"
        text, field = (item.arguments, "arguments") if is_function else (item.input, "input")
        for name, value in (("call_id", item.call_id), ("name", item.name), (field, text)):
            if not isinstance(value, str) or (not value and name != field):
                raise RequestError(f"`{path}.{name}` is missing", param=f"{path}.{name}")
        arguments = text if is_function else msgspec.json.encode({CUSTOM_ARGUMENT: text}).decode()
        name = chat_name(item.name or "", item.namespace or None)
        call = ToolCall(FunctionCall(name, arguments), id=item.call_id or None)
        self._functions[item.call_id or ""] = name
        turn = self._turn(path)
        turn.calls.append(call)
        self._name(f"tool_calls[{len(turn.calls) - 1}]", path)

    def _add_output(self, item: InputItem, path: str) -> None:
        for name, value in (("call_id", item.call_id), ("output", item.output)):
            if not isinstance(value, str | list) or (not value and name == "call_id"):
                raise RequestError(f"`{path}.{name}` is missing", param=f"{path}.{name}")
        message = ChatMessage(
            role="tool",
            content=read_content(item.output or "", f"{path}.output"),
            tool_call_id=item.call_id or None,
            name=self._functions.get(item.call_id or ""),
        )
        self._append(message, path)
        self._name("content", f"{path}.output")

    def _turn(self, path: str, *, only_after_reasoning: bool = False) -> _Turn:
        """Return the turn that an item belongs to: the last one, or a new one.

        ``only_after_reasoning``: the item can't follow a text or a call of the turn.
        """
        last = self._messages[-1] if self._messages else None
        if isinstance(last, _Turn) and not (
            only_after_reasoning and (last.calls or last.content is not None)
        ):
            return last
        turn = _Turn()
        self._append(turn, path)
        return turn

    def _append(self, message: ChatMessage | _Turn, path: str) -> None:
        self.names[f"messages[{len(self._messages)}]"] = path
        self._messages.append(message)

    def _name(self, name: str, path: str) -> None:
        """Record where a field of the last message is in the request."""
        self.names[f"messages[{len(self._messages) - 1}].{name}"] = path


def resolve_references(items: Sequence[InputItem], known: Mapping[str, InputItem]) -> list[InputItem]:
    """Return the items with each ``item_reference`` replaced by the item of that id.

    Raise `RequestError` if there is none.
    """
    resolved: list[InputItem] = []
    for index, item in enumerate(items):
        if not is_reference(item):
            resolved.append(item)
        elif item.id and item.id in known:
            resolved.append(known[item.id])
        else:
            raise RequestError(
                f"`input[{index}]`: there is no stored item {shown(item.id)}",
                param=f"input[{index}].id",
                code="item_not_found",
            )
    return resolved


def is_reference(item: InputItem) -> bool:
    """Return whether the item stands for an earlier one: it may be without a type."""
    untyped = item.type in (None, "message") and not item.role and not item.content
    return bool(item.id) and (item.type == "item_reference" or untyped)


def read_content(content: str | list[InputPart], path: str) -> str | list[ContentPart]:
    """Return the content of a message. Raise `RequestError` for a part that is not supported."""
    if isinstance(content, str):
        return content
    parts = [_read_part(part, f"{path}[{i}]") for i, part in enumerate(content)]
    if len(parts) < 2 and all(part.type == "text" for part in parts):
        return "".join(part.text or "" for part in parts)
    return parts


def _read_part(part: InputPart, path: str) -> ContentPart:
    if part.type in _TEXT_PARTS:
        return ContentPart(type="text", text=_text(part, path))
    if part.type == "refusal":
        return ContentPart(type="refusal", refusal=part.refusal or "")
    if part.type != "input_image":
        raise RequestError(
            f"content parts of type {part.type!r} are not supported",
            param=f"{path}.type",
            code="unsupported_parameter",
        )
    if not part.image_url:
        field = "file_id" if part.file_id else "image_url"
        reason = "is not supported: send `image_url`" if part.file_id else "is missing"
        raise RequestError(f"`{path}.{field}` {reason}", param=f"{path}.{field}")
    return ContentPart(type="image_url", image_url=ImageUrl(part.image_url, part.detail or None))


def _text(part: InputPart, path: str) -> str:
    if not isinstance(part.text, str):
        raise RequestError(f"`{path}.text` is missing", param=f"{path}.text")
    return part.text


def _reasoning(item: InputItem, path: str) -> str:
    """Return the text of a reasoning item: the reasoning itself if it has it, or else the summary."""
    if isinstance(item.content, str):
        return item.content
    parts, field = (item.content, "content") if item.content else (item.summary, "summary")
    return "\n".join(_text(part, f"{path}.{field}[{i}]") for i, part in enumerate(parts or ()))
