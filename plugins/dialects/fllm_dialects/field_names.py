"""Errors about a chat request that a dialect made, in the names of the fields that its client sent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fllm import RequestError

_QUOTED = re.compile(r"`([^`\s]+)`")
_LAST_STEP = re.compile(r"(?:\.[^.\[\]]*|\[[^\[\]]*\])$")


@contextmanager
def field_names(names: Mapping[str, str]) -> Iterator[None]:
    """Replace the names of fields in a `RequestError` that the block raises.

    ``names`` has the path of each field of the chat request that the client's request calls something else:
    ``{"max_completion_tokens": "max_output_tokens", "messages[3].content": "input[2].content"}``. The longest
    of them that a path begins with is replaced, in ``param`` and between backticks in the message.
    """
    try:
        yield
    except RequestError as error:
        error.message = renamed_in(error.message, names)
        error.args = (error.message,)
        error.param = None if error.param is None else renamed(error.param, names)
        raise


def renamed(path: str, names: Mapping[str, str]) -> str:
    """Return the path with its longest beginning that has another name replaced."""
    beginning = path
    while beginning not in names:
        step = _LAST_STEP.search(beginning)
        if step is None:
            return path
        beginning = beginning[: step.start()]
    return names[beginning] + path[len(beginning) :]


def renamed_in(message: str, names: Mapping[str, str]) -> str:
    """Return the message with each path between backticks renamed."""
    return _QUOTED.sub(lambda match: f"`{renamed(match[1], names)}`", message)
