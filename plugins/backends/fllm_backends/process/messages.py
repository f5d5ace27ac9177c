"""What the two processes say to each other. Keys number the requests of one child's life."""

from __future__ import annotations

from msgspec import Struct

from fllm import (
    BackendConfig,
    BackendError,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    ModelCard,
    PluginConfig,
    Progress,
    errors,
)
from fllm.logs import LogFormat

START = -1
"""Key of the answer to `Start`."""
STATUS = -2
"""Key of the answer to `AskStatus`; one question is asked at a time."""


class Message(Struct, frozen=True, tag=True, array_like=True):
    """The root: an array that begins with the name of the message."""


class Start(Message, frozen=True):
    """To the child, once: make this backend and start it."""

    backend: str
    config: BackendConfig
    plugins: PluginConfig
    log_level: int
    log_format: LogFormat = "console"


class Generate(Message, frozen=True):
    """To the child: continue a prompt."""

    key: int
    prompt: GenerateRequest


class Abort(Message, frozen=True):
    """To the child: nobody wants the rest."""

    key: int


class AskStatus(Message, frozen=True):
    """To the child: are you well?"""


class Stop(Message, frozen=True):
    """To the child: release everything and exit."""


class Loading(Message, frozen=True):
    """To the parent: how far the start has come."""

    progress: Progress


class Started(Message, frozen=True):
    """To the parent: the answer to `Start`."""

    card: ModelCard


class Steps(Message, frozen=True):
    """To the parent: all steps that became ready together, so that a token costs little."""

    steps: list[tuple[int, EngineOutput]]


class StatusIs(Message, frozen=True):
    """To the parent: the answer to `AskStatus`."""

    status: EngineStats


class Failed(Message, frozen=True):
    """To the parent: what was asked under this key ended with an error."""

    key: int
    kind: str
    message: str
    param: str | None = None
    code: str | None = None

    def error(self) -> errors.FllmError:
        """The error anew, of the type that it had in the child."""
        kind: type[errors.FllmError] = getattr(errors, self.kind)
        if issubclass(kind, errors.ContextTooLong):
            return kind(self.message, param=self.param)
        if issubclass(kind, errors.RequestError):
            return kind(self.message, param=self.param, code=self.code)
        return kind(self.message)


ToChild = Start | Generate | Abort | AskStatus | Stop
ToParent = Loading | Started | Steps | StatusIs | Failed


def failed(key: int, error: BaseException) -> Failed:
    """An error made ready to travel: its nearest type of ours, or `BackendError` for a stranger."""
    if not isinstance(error, errors.FllmError):
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        return Failed(key, BackendError.__name__, text)
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    param, code = getattr(error, "param", None), getattr(error, "code", None)
    return Failed(key, kind.__name__, error.message, param, code)
