"""A conversation: its messages, and the files that it is saved in."""

from __future__ import annotations

import base64
import mimetypes
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from fllm.errors import ConfigError
from fllm_terminal.settings import Sampling, Settings

MAX_IMAGE_BYTES = 20_000_000


class ToolCall(Struct):
    """A call that the model made; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str = ""


class Answer(Struct):
    """What the model generated for one request."""

    text: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = []

    def message(self) -> dict[str, Any]:
        """Return the message for the next request."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.calls
            ]
        return message


class Conversation:
    """The messages so far, without the system prompt, which is a setting."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.messages: list[dict[str, Any]] = []
        self._images: list[dict[str, Any]] = []

    def attach_image(self, path: Path) -> None:
        """Send an image with the next message. Raise `ConfigError` if it can't be read or is too large."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error
        if len(data) > MAX_IMAGE_BYTES:
            raise ConfigError(f"{path} has more than {MAX_IMAGE_BYTES // 1_000_000} MB")
        media_type = mimetypes.guess_type(path)[0] or "image/png"
        url = f"data:{media_type};base64,{base64.b64encode(data).decode()}"
        self._images.append({"type": "image_url", "image_url": {"url": url}})

    def ask(self, text: str) -> None:
        """Add a message of the user, with the attached images."""
        content: Any = [*self._images, {"type": "text", "text": text}] if self._images else text
        self._images = []
        self.messages.append({"role": "user", "content": content})

    def add(self, answer: Answer) -> None:
        """Add an answer. An empty one is left out: it would be an invalid message."""
        if answer.text or answer.reasoning or answer.calls:
            self.messages.append(answer.message())

    def add_result(self, call: ToolCall, result: str) -> None:
        """Add the result of a call."""
        self.messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

    def take_back(self) -> bool:
        """Remove the last message of the user and all after it. Return whether there was one."""
        for index in reversed(range(len(self.messages))):
            if self.messages[index]["role"] == "user":
                del self.messages[index:]
                return True
        return False

    def unanswer(self) -> bool:
        """Remove what follows the last message of the user. Return whether there is one."""
        for index in reversed(range(len(self.messages))):
            if self.messages[index]["role"] == "user":
                del self.messages[index + 1 :]
                return True
        return False

    def clear(self) -> None:
        """Remove all messages. The settings stay."""
        self.messages.clear()
        self._images.clear()

    def body(self) -> dict[str, Any]:
        """Return the body of the next request: one of OpenAI's Chat API."""
        system = [{"role": "system", "content": self.settings.system}] if self.settings.system else []
        return {**self.settings.fields(), "messages": [*system, *self.messages]}

    def save(self, path: Path) -> None:
        """Write the conversation as the body of a request: JSON. Raise `ConfigError` if that fails."""
        try:
            path.write_bytes(msgspec.json.format(msgspec.json.encode(self.body())) + b"\n")
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error

    def load(self, path: Path) -> None:
        """Read what `save` wrote; the model stays. Raise `ConfigError` if it is something else."""
        try:
            saved = msgspec.json.decode(path.read_bytes(), type=_Saved)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path} is not a saved conversation: {error}") from error
        messages = [*saved.messages]
        self.settings.system = ""
        if messages and messages[0]["role"] == "system" and isinstance(messages[0].get("content"), str):
            self.settings.system = messages.pop(0)["content"]
        self.settings.sampling = saved.sampling()
        self.settings.tools = saved.tools
        self.settings.response_format = saved.response_format
        self.clear()
        self.messages += messages


class _Saved(Sampling, kw_only=True, forbid_unknown_fields=False):
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = msgspec.field(default_factory=list)
    response_format: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not all(isinstance(message.get("role"), str) for message in self.messages):
            raise ValueError("a message has no role")

    def sampling(self) -> Sampling:
        return Sampling(**self.fields())
