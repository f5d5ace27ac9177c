"""Adapt a conversation to what a chat template can express: merge, split and rename messages.

The functions get OpenAI's messages, and return new ones. They lose no text.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain, groupby, takewhile
from typing import Any

from fllm.chat.message_content import join_contents, part_text
from fllm.chat.tool_prompt import CallFormat

Message = dict[str, Any]
Messages = Sequence[Message]
Adapt = Callable[[Messages], list[Message]]
"""Returns the messages in another form."""
Write = Callable[[Messages, CallFormat], list[Message]]
"""Returns the messages with tool calls in another form."""

SYSTEM_ROLES = ("system", "developer")
_ID_CHARACTERS = string.ascii_letters + string.digits
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
_ID_LENGTH = 9


def join_system_messages(messages: Messages) -> list[Message]:
    """Join all system and developer messages, by empty lines, into one at the beginning."""
    system, others = _partition(messages)
    return [{**system[0], "content": _joined(system)}, *others] if system else others


def move_system_into_first_user(messages: Messages) -> list[Message]:
    """Put the text of all system messages before that of the first user message."""
    return _move_system(messages, 0)


def move_system_into_last_user(messages: Messages) -> list[Message]:
    """Join the system messages; put them into the last user message unless that is the final message."""
    return join_system_messages(messages) if messages[-1]["role"] == "user" else _move_system(messages, -1)


def _move_system(messages: Messages, which: int) -> list[Message]:
    system, others = _partition(messages)
    if not system:
        return others
    users = [i for i, message in enumerate(others) if message["role"] == "user"]
    if not users:
        return [{"role": "user", "content": _joined(system)}, *others]
    user = others[users[which]]
    others[users[which]] = {**user, "content": _joined([*system, user])}
    return others


def _partition(messages: Messages) -> tuple[list[Message], list[Message]]:
    """Return the system and developer messages, and the others."""
    system = [message for message in messages if message["role"] in SYSTEM_ROLES]
    return system, [message for message in messages if message["role"] not in SYSTEM_ROLES]


def _joined(messages: Messages, name: str = "content") -> Any:
    return join_contents(message.get(name) for message in messages)


def begin_with_user(messages: Messages) -> list[Message]:
    """Insert an empty user message if the first message, after the system messages, is not the user's."""
    system = list(takewhile(lambda message: message["role"] in SYSTEM_ROLES, messages))
    others = messages[len(system) :]
    if others and others[0]["role"] == "user":
        return list(messages)
    return [*system, {"role": "user", "content": ""}, *others]


def alternate_roles(messages: Messages) -> list[Message]:
    """Let messages of the user and the assistant alternate; tool calls and their results are not counted.

    Neighbours of one role are merged, and an empty message fills any other gap.
    """
    return _alternate(messages, lambda message: None if message.get("tool_calls") else message["role"])


def alternate_turns(messages: Messages) -> list[Message]:
    """Let turns alternate: tool calls, their results and the answer to them are one turn of the assistant."""
    return _alternate(messages, lambda message: message["role"])


def _alternate(messages: Messages, role_of: Callable[[Message], str | None]) -> list[Message]:
    result: list[Message] = []
    expected, continues = "user", False
    for role, run in groupby(messages, role_of):
        if role not in ("user", "assistant"):
            result += run
            continue
        if not (continues and role == "assistant"):
            result += [{"role": expected, "content": ""}] if role != expected else []
            expected = "assistant" if role == "user" else "user"
        result += _merged_runs(run)
        continues = bool(result[-1].get("tool_calls"))
    return result


def _merged_runs(messages: Iterable[Message]) -> list[Message]:
    """Merge messages up to each one with tool calls."""
    runs: list[list[Message]] = [[]]
    for message in messages:
        runs[-1].append(message)
        runs += [[]] if message.get("tool_calls") else []
    return [_merged(run) for run in runs if run]


def _merged(messages: Messages) -> Message:
    if len(messages) == 1:
        return messages[0]
    given = ((name, value) for message in messages for name, value in message.items() if value is not None)
    joined = {name: _joined(messages, name) for name in ("content", "reasoning_content")}
    return {**dict(given), **joined}


def separate_calls(messages: Messages) -> list[Message]:
    """Give each tool call a message of its own, followed by its results."""
    result: list[Message] = []
    groups: dict[object, list[Message]] = {}
    """The calls of the last message by id, each with its results."""
    for message in messages:
        if groups and message["role"] == "tool":
            last = next(reversed(groups))
            groups.get(message.get("tool_call_id"), groups[last]).append(message)
            continue
        result += chain.from_iterable(groups.values())
        groups = _with_one_call_each(message) if len(message.get("tool_calls") or ()) > 1 else {}
        result += [] if groups else [message]
    return [*result, *chain.from_iterable(groups.values())]


def _with_one_call_each(message: Message) -> dict[object, list[Message]]:
    groups: dict[object, list[Message]] = {}
    for i, call in enumerate(message["tool_calls"]):
        head = {"role": message["role"], "content": None} if groups else message
        key = call.get("id") if call.get("id") not in groups else (call.get("id"), i)
        groups[key] = [{**head, "tool_calls": [call]}]
    return groups


def separate_text_from_calls(messages: Messages) -> list[Message]:
    """Split an assistant message with text and tool calls into two."""
    return list(chain.from_iterable(_separated(message) for message in messages))


def separate_answered_text_from_calls(messages: Messages) -> list[Message]:
    """Split text from calls before the last answer; after it, text follows the reasoning, if there is any."""
    numbered = reversed([*enumerate(messages, 1)])
    answers = (i for i, each in numbered if each["role"] == "assistant" and not each.get("tool_calls"))
    end = next(answers, 0)
    return [
        *separate_text_from_calls(messages[:end]),
        *(_with_text_as_reasoning(message) for message in messages[end:]),
    ]


def _separated(message: Message) -> list[Message]:
    if not (message.get("tool_calls") and message.get("content")):
        return [message]
    return [{"role": message["role"], "content": message["content"]}, {**message, "content": None}]


def _with_text_as_reasoning(message: Message) -> Message:
    reasoning, content = message.get("reasoning_content"), message.get("content")
    if not (message.get("tool_calls") and reasoning and content):
        return message
    return {**message, "content": None, "reasoning_content": _plain_text([reasoning, content])}


def join_parts_of(roles: Collection[str]) -> Adapt:
    """Return a function that joins the parts of the content of messages of these roles."""
    return lambda messages: [
        {**message, "content": _plain_text([message.get("content")])}
        if message["role"] in roles and message.get("content")
        else message
        for message in messages
    ]


def fill_empty_answers(messages: Messages) -> list[Message]:
    """Give a space to messages of the assistant without text and tool calls."""
    return [
        {**message, "content": " "}
        if message["role"] == "assistant" and not (message.get("content") or message.get("tool_calls"))
        else message
        for message in messages
    ]


def _plain_text(contents: Iterable[Any]) -> str:
    content = join_contents(contents)
    return content if isinstance(content, str) else "\n".join(map(part_text, content))


def shorten_call_ids(messages: Messages) -> list[Message]:
    """Replace ids of tool calls that are not nine letters and digits, in calls and results alike."""
    return [_with_short_ids(message) for message in messages]


def _with_short_ids(message: Message) -> Message:
    message = dict(message)
    if isinstance(call_id := message.get("tool_call_id"), str):
        message["tool_call_id"] = short_id(call_id)
    if calls := message.get("tool_calls"):
        message["tool_calls"] = [{**call, "id": short_id(str(call.get("id") or ""))} for call in calls]
    return message


def short_id(call_id: str) -> str:
    """Return an id of nine letters and digits: the same one, or else one that depends on nothing else."""
    if _SHORT_ID.fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.blake2b(call_id.encode("utf-8", "surrogatepass"), digest_size=8).digest())
    digits = [number // len(_ID_CHARACTERS) ** i % len(_ID_CHARACTERS) for i in range(_ID_LENGTH)]
    return "".join(_ID_CHARACTERS[digit] for digit in digits)


def new_short_id() -> str:
    """Return a random id of nine letters and digits."""
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))


def rename_results(role: str) -> Adapt:
    """Return a function that changes the role of tool results."""
    return lambda messages: [
        {**message, "role": role} if message["role"] == "tool" else message for message in messages
    ]


def results_as_text(messages: Messages) -> list[Message]:
    """Turn the results that follow tool calls into messages of the user, one for all of a message's calls."""
    return _as_text(messages, lambda _, called: bool(called))


def orphans_as_text(messages: Messages) -> list[Message]:
    """Turn results of tools that do not directly follow their call into messages of the user."""
    return _as_text(messages, lambda call_id, called: call_id not in called)


def _as_text(messages: Messages, becomes_text: Callable[[Any, set[Any]], bool]) -> list[Message]:
    names = _function_names(messages)
    result: list[Message] = []
    called: set[Any] = set()
    """The ids of the calls in the message before."""
    for is_result, run in groupby(messages, lambda message: message["role"] == "tool"):
        run_messages = list(run)
        if is_result:
            kept: list[Message] = []
            texts: list[Any] = []
            for message in run_messages:
                if becomes_text(message.get("tool_call_id"), called):
                    texts.append(_result_text(message, names))
                else:
                    kept.append(message)
            run_messages = kept + ([{"role": "user", "content": join_contents(texts)}] if texts else [])
        else:
            called = {call.get("id") for call in run_messages[-1].get("tool_calls") or ()}
        result += run_messages
    return result


def _function_names(messages: Messages) -> dict[object, str]:
    calls = chain.from_iterable(message.get("tool_calls") or () for message in messages)
    return {call.get("id"): call["function"]["name"] for call in calls}


def _result_text(result: Message, names: dict[object, str]) -> Any:
    name = result.get("name") or names.get(result.get("tool_call_id"))
    # After this wording, small models answer; after "Result of ...:", they repeat the call.
    heading = f"The function {name} returned:" if name else "The function returned:"
    return join_contents([heading, result.get("content")], " ")


def calls_as_text(messages: Messages, call_format: CallFormat) -> list[Message]:
    """Turn tool calls into text of the assistant."""
    return [
        _with_calls_as_text(message, call_format) if message.get("tool_calls") else message
        for message in messages
    ]


def calls_and_results_as_text(messages: Messages, call_format: CallFormat) -> list[Message]:
    """Turn tool calls and their results into text."""
    return calls_as_text(results_as_text(messages), call_format)


def _with_calls_as_text(message: Message, call_format: CallFormat) -> Message:
    calls = call_format.write(call["function"] for call in message["tool_calls"])
    others = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**others, "content": join_contents([message.get("content"), calls])}


def answer_calls(messages: Messages) -> list[Message]:
    """Add an empty result to each call without one."""
    result: list[Message] = []
    unanswered: dict[object, Message] = {}
    for message in messages:
        if message["role"] == "tool":
            unanswered.pop(message.get("tool_call_id"), None)
        else:
            result += unanswered.values()
            ids = [call.get("id") for call in message.get("tool_calls") or ()]
            unanswered = {each: {"role": "tool", "tool_call_id": each, "content": ""} for each in ids}
        result.append(message)
    return [*result, *unanswered.values()]
