"""Adapt the messages of other servers, and of outputs that were cut off, to what chat templates expect."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

import msgspec

from fllm.errors import RequestError
from fllm.parsing.argument_coercion import read_value
from fllm.parsing.argument_writer import quoted
from fllm.parsing.json_objects import complete_object, is_json
from fllm.requests.chat import ChatMessage

log = logging.getLogger("fllm.server")

Message = dict[str, Any]


def template_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """Return the messages as dictionaries, in the form that OpenAI documents today.

    A refusal is content, a ``function_call`` is a tool call, and each call and result has an id. The
    arguments of each call are a JSON object. Raise `RequestError` for a part of type ``image``.
    """
    _reject_image_parts(messages)
    builtins = [_modern(msgspec.to_builtins(message)) for message in messages]
    _add_call_ids(builtins)
    changed = []
    for i, message in enumerate(builtins):
        for j, call in enumerate(message.get("tool_calls") or ()):
            function = call["function"]
            sent, function["arguments"] = function["arguments"], object_text(function["arguments"])
            if isinstance(sent, str) and sent.strip() not in ("", "null", function["arguments"]):
                changed.append(f"messages[{i}].tool_calls[{j}]")
    if changed:
        log.info("arguments that are not a JSON object are passed to the model as one: %s", changed[0])
    return builtins


def _reject_image_parts(messages: Sequence[ChatMessage]) -> None:
    """Reject what stands for an image in chat templates: it would have no image in a request."""
    for i, message in enumerate(messages):
        for j, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if part.type == "image":
                raise RequestError(
                    "content parts of type 'image' are not supported; those of images are 'image_url'",
                    param=f"messages[{i}].content[{j}].type",
                )


def object_text(arguments: Any) -> str:
    """Return the arguments as the text of a JSON object.

    An object that is cut off is completed, and a dictionary of Python is converted. Anything else becomes the
    only member of an object, so that nothing that the model wrote is lost.
    """
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    text = arguments.strip()
    if text in ("", "null"):
        return "{}"
    if (completed := complete_object(text)) is not None and is_json(completed):
        return completed
    value = read_value(text)
    if value is None or not is_json(value):
        value = quoted(text)
    return value if value.startswith("{") else f'{{"arguments": {value}}}'


def _modern(message: Message) -> Message:
    """Return the message without the fields that have another name today."""
    function_call, tool_name = message.pop("function_call", None), message.pop("tool_name", None)
    reasoning, thinking = message.pop("reasoning", None), message.pop("thinking", None)
    refusal = message.pop("refusal", None)
    if function_call and not message.get("tool_calls"):
        message["tool_calls"] = [{"id": None, "function": function_call}]
    if message["role"] == "function":
        message["role"] = "tool"
    if message["role"] == "tool":
        message["name"] = message.get("name") or tool_name
    message["reasoning_content"] = message.get("reasoning_content") or reasoning or thinking
    message["content"] = message["content"] or refusal or message["content"]
    for call in message.get("tool_calls") or ():
        call["type"] = "function"
    return message


def _add_call_ids(messages: list[Message]) -> None:
    """Give an id to each call without one, or with one that another call of the message has.

    A result without an id is that of the first open call of its function, or else of the first open call. So
    is a result with an id that no call has, if a call is left after all others.
    """
    open_calls, known = _OpenCalls({}), set[str | None]()
    strays: list[Message] = []
    for i, message in enumerate(messages):
        if calls := message.get("tool_calls"):
            ids = {f"call_{i}_{j}" if not call["id"] else call["id"]: call for j, call in enumerate(calls)}
            if len(ids) < len(calls):
                ids = {f"{call['id'] or 'call'}_{i}_{j}": call for j, call in enumerate(calls)}
            _answer_with(strays, open_calls)
            open_calls, strays = _OpenCalls(ids), []
            known.update(call["id"] for call in calls)
            for call_id, call in ids.items():
                call["id"] = call_id
        elif message["role"] == "tool":
            sent = message.get("tool_call_id")
            if sent and sent not in known:
                strays.append(message)
            message["tool_call_id"] = open_calls.answer(sent, message.get("name")) or sent or f"call_{i}"
    _answer_with(strays, open_calls)


def _answer_with(strays: Sequence[Message], open_calls: _OpenCalls) -> None:
    """Let results with unknown ids answer the calls that are still open."""
    for message in strays:
        if call_id := open_calls.answer(None, message.get("name")):
            message["tool_call_id"] = call_id


class _OpenCalls:
    """The calls of one message that have no result yet."""

    def __init__(self, calls: dict[str, Message]) -> None:
        self._closed: set[str] = set()
        self._all = deque(calls)
        self._by_sent_id: defaultdict[str | None, deque[str]] = defaultdict(deque)
        self._by_name: defaultdict[str | None, deque[str]] = defaultdict(deque)
        for call_id, call in calls.items():
            self._by_sent_id[call["id"]].append(call_id)
            self._by_name[call["function"]["name"]].append(call_id)

    def answer(self, sent: str | None, name: str | None) -> str | None:
        """Close the call that a result belongs to, and return its id; ``None`` if there is none."""
        for queue in [self._by_sent_id[sent]] if sent else [self._by_name[name], self._all]:
            while queue:
                if (call_id := queue.popleft()) not in self._closed:
                    self._closed.add(call_id)
                    return call_id
        return None
