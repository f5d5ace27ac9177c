"""``truncation``: "auto" leaves out the oldest messages of a conversation that is too long."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from fllm import ChatMessage, ChatRequest, Generation, Serving
from fllm.errors import ContextTooLong

_ALWAYS_KEPT = ("system", "developer")


async def read_within_context(server: Serving, chat: ChatRequest) -> Generation:
    """Return the generation for a chat, if need be without its oldest messages.

    As few as possible are left out: a binary search renders the conversation a few times. Raise
    `ContextTooLong` if what is always kept does not fit either.
    """
    try:
        return await server.read_chat(chat)
    except ContextTooLong:
        groups = droppable_groups(chat.messages)
        if not groups:
            raise
    fewest, most = 1, len(groups)
    generation = await server.read_chat(_without(chat, groups))
    while fewest < most:
        middle = (fewest + most) // 2
        try:
            generation = await server.read_chat(_without(chat, groups[:middle]))
            most = middle
        except ContextTooLong:
            fewest = middle + 1
    return generation


def droppable_groups(messages: Sequence[ChatMessage]) -> list[list[int]]:
    """Return the indices of the messages that can be left out, oldest first, in groups that belong together.

    These are the turns of the user before the last one, and then the calls of the last turn with their
    results. So the conversation begins with a message of the user, which some chat templates demand.
    Instructions, the last message of the user and what follows the last call always stay.
    """
    turns: list[list[list[int]]] = [[]]
    for index, message in enumerate(messages):
        if message.role in _ALWAYS_KEPT:
            continue
        if message.role == "user":
            turns.append([[index]])
        elif message.role == "tool" and turns[-1]:
            turns[-1][-1].append(index)
        else:
            turns[-1].append([index])
    turns = [turn for turn in turns if turn]
    if not turns:
        return []
    *earlier, last = turns
    whole = [[index for group in turn for index in group] for turn in earlier]
    asked = messages[last[0][0]].role == "user"
    return [*whole, *last[1 if asked else 0 : -1]]


def _without(chat: ChatRequest, groups: Sequence[Sequence[int]]) -> ChatRequest:
    left_out = {index for group in groups for index in group}
    kept = [message for index, message in enumerate(chat.messages) if index not in left_out]
    return replace(chat, messages=kept)
