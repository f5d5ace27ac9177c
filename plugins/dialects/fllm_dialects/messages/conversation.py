"""The messages of a request as those of a chat.

In Anthropic's API tool results are blocks of the user's message, and neighbours of one role are one turn. A
chat has a message for each result.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fllm import ChatMessage, ContentPart, FunctionCall, RequestError, ToolCall
from fllm_dialects.messages.blocks import Part, block_parts, content_of, marked_as_error, parts_of, text_parts
from fllm_dialects.messages.ids import chat_call_id
from fllm_dialects.messages.protocol import (
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    InputMessage,
    PlainText,
    RedactedThinkingBlock,
    SearchResultBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)

Located = tuple[str, ContentBlock]
"""A block, and its path in the request."""

BILLING_HEADER = "x-anthropic-billing-header:"
"""How a line begins that Claude Code puts before the system prompt. It is left out: it is different in each
conversation, so none would find the beginning of its prompt in the prefix cache."""

_BLOCKS_OF_ROLE: dict[str, tuple[type, ...]] = {
    "user": (TextBlock, ImageBlock, DocumentBlock, SearchResultBlock, ToolResultBlock),
    "assistant": (TextBlock, ThinkingBlock, RedactedThinkingBlock, ToolUseBlock),
    "system": (TextBlock,),
}


class Conversation:
    """Collects the messages of a chat, and where in the request they come from."""

    def __init__(self) -> None:
        self.messages: list[ChatMessage] = []
        self.names: dict[str, str] = {}
        """The path in the request of each message, part and call of the chat."""
        self._role = ""
        self._turn: list[Located] = []
        """Blocks of the last messages, which have one role."""
        self._path = ""
        """Path of the first of these messages."""

    def add_system(self, system: str | Sequence[PlainText] | None) -> None:
        """Add the system prompt, if it has any text."""
        parts = parts_of(system or "", "system")
        if parts := [
            each for path, part in parts for each in text_parts(_without_billing_header(part), path)
        ]:
            self._add("system", "system", parts)

    def add(self, message: InputMessage, path: str) -> None:
        """Add a message. Raise `RequestError` for a block that its role can't have."""
        if message.role != self._role or self._role == "system":
            self.end_turn()
            self._role, self._path = message.role, path
        if isinstance(message.content, str):
            self._turn.append((f"{path}.content", TextBlock(message.content)))
            return
        allowed = _BLOCKS_OF_ROLE[message.role]
        for i, block in enumerate(message.content):
            if not isinstance(block, allowed):
                kind = type(block).__struct_config__.tag
                param = f"{path}.content[{i}].type"
                raise RequestError(
                    f"`{param}`: a message of the role {message.role!r} can't have a block of type {kind!r}",
                    param=param,
                )
            self._turn.append((f"{path}.content[{i}]", block))

    def end_turn(self) -> None:
        """Add what the last messages, of one role, amount to."""
        turn, self._turn = self._turn, []
        match self._role:
            case "user":
                self._add_user_turn(turn)
            case "assistant":
                self._add_assistant_turn(turn)
            case "system":
                if parts := [part for path, block in turn for part in block_parts(block, path)]:
                    self._add("system", self._path, parts)

    def _add_user_turn(self, turn: Sequence[Located]) -> None:
        """Add the results, which answer the calls before, and then the rest."""
        rest: list[Part] = []
        has_results = False
        for path, block in turn:
            if isinstance(block, ToolResultBlock):
                has_results = True
                parts = parts_of(block.content or "", f"{path}.content")
                if block.is_error:
                    parts = marked_as_error(parts, path)
                self._add("tool", path, parts, tool_call_id=chat_call_id(block.tool_use_id))
            else:
                rest += block_parts(block, path)
        if rest or not has_results:
            self._add("user", self._path, rest)

    def _add_assistant_turn(self, turn: Sequence[Located]) -> None:
        message = f"messages[{len(self.messages)}]"
        parts: list[Part] = []
        reasoning: list[str] = []
        calls: list[ToolCall] = []
        for path, block in turn:
            match block:
                case ThinkingBlock(thinking=text):
                    reasoning += [text] if text else []
                case ToolUseBlock():
                    self.names |= {
                        f"{message}.tool_calls[{len(calls)}]": path,
                        f"{message}.tool_calls[{len(calls)}].function.name": f"{path}.name",
                        f"{message}.tool_calls[{len(calls)}].function.arguments": f"{path}.input",
                    }
                    calls.append(_tool_call(block, path))
                case TextBlock():
                    parts += block_parts(block, path)
        self._add(
            "assistant",
            self._path,
            parts,
            tool_calls=calls or None,
            reasoning_content="\n\n".join(reasoning) or None,
        )

    def _add(
        self,
        role: str,
        path: str,
        parts: Sequence[Part],
        *,
        tool_call_id: str | None = None,
        tool_calls: list[ToolCall] | None = None,
        reasoning_content: str | None = None,
    ) -> None:
        message = f"messages[{len(self.messages)}]"
        content = content_of(parts)
        self.names[message] = path
        if isinstance(content, str):
            self.names[f"{message}.content"] = parts[0][0] if parts else path
        for i, (part_path, part) in enumerate(parts if isinstance(content, list) else ()):
            self.names[f"{message}.content[{i}]"] = part_path
            if part.image_url is not None:
                self.names[f"{message}.content[{i}].image_url"] = f"{part_path}.source"
        self.messages.append(
            ChatMessage(
                role=role,
                content=content,
                tool_call_id=tool_call_id,
                tool_calls=tool_calls,
                reasoning_content=reasoning_content,
            )
        )


def _without_billing_header(part: ContentPart) -> str:
    text = part.text or ""
    return text.partition("\n")[2] if text.startswith(BILLING_HEADER) else text


def _tool_call(block: ToolUseBlock, path: str) -> ToolCall:
    try:
        arguments = msgspec.json.encode(block.input).decode()
    except RecursionError as error:
        raise RequestError(f"`{path}.input` is nested too deeply", param=f"{path}.input") from error
    return ToolCall(FunctionCall(block.name, arguments), chat_call_id(block.id))
