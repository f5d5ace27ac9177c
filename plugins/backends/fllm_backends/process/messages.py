"""The messages between the two processes. A key identifies a request of one child process."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct, msgpack

from fllm import (
    BackendConfig,
    BackendError,
    CacheChanges,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    LoraAdapter,
    ModelCard,
    PluginConfig,
    PoolingOutput,
    PoolingRequest,
    PreparedImages,
    Progress,
    TokenLogprob,
    errors,
)
from fllm.logs import LogFormat

START = -1
"""Key of the response to `Start`."""
STATUS = -2
"""Key of the response to `GetStatus`; only one such request is in flight."""


MAX_RESULT_BYTES = 128 << 20
"""Maximum size of the result of a `Call`, which holds vectors: twice 2,048 vectors of 8,192 values."""
MAX_MESSAGE_BYTES = 16 << 20
"""Maximum size of other messages of an engine. Decoded, a message takes up to 60 times as much memory."""
FILE_NAME = r"\A(additional_chat_templates/)?\w[\w-]{0,99}\.(json|jinja)\Z"
"""Pattern of the names of files that an engine may send: none leads out of a directory."""
MAX_FILES = 100
"""Maximum number of them. Together they are at most `MAX_RESULT_BYTES`."""
MAX_OUTPUTS = 1 << 16
"""Maximum number of outputs in one message."""


class Message(Struct, frozen=True, tag=True, array_like=True):
    """Base class: encoded as an array whose first item is the name of the message."""


class Start(Message, frozen=True):
    """To the child, once: create this backend and start it."""

    backend: str
    config: BackendConfig
    plugins: PluginConfig
    log_level: int
    log_format: LogFormat = "console"
    adapters: tuple[LoraAdapter, ...] = ()
    """Adapters that an earlier process has loaded: those that can't be loaded again are left out."""
    report_cache: bool = False
    """Whether to send `CacheChanged`."""


class Generate(Message, frozen=True):
    """To the child: generate the output of a request."""

    key: int
    request: GenerateRequest


class Call(Message, frozen=True):
    """To the child: call a method of the backend, and send what it returns."""

    key: int
    method: str
    """One of `METHODS`."""
    arguments: Raw
    """A tuple of the method's types, encoded."""


class Abort(Message, frozen=True):
    """To the child: abort a request or a call."""

    key: int


class GetStatus(Message, frozen=True):
    """To the child: send the status of the backend."""


class Stop(Message, frozen=True):
    """To the child: stop the backend and exit."""


class LoadProgress(Message, frozen=True):
    """To the parent: progress of the start."""

    progress: Progress


class ModelFile(Message, frozen=True):
    """To the parent, before `Started`: a part of a small file of a model on another machine."""

    name: Annotated[str, Meta(pattern=FILE_NAME)]
    content: bytes


class Started(Message, frozen=True):
    """To the parent: the response to `Start`."""

    card: ModelCard


class CacheChanged(Message, frozen=True):
    """To the parent: what the prefix cache has gained and lost, before the outputs of the same step."""

    changes: CacheChanges


class Outputs(Message, frozen=True):
    """To the parent: all outputs that became ready together, with their keys. Batching keeps tokens cheap."""

    outputs: Annotated[list[tuple[int, EngineOutput]], Meta(max_length=MAX_OUTPUTS)]


class PromptLogprobs(Message, frozen=True):
    """To the parent: a part of the `prompt_logprobs` of the request's next output.

    A message is encoded and decoded at once, and all of them may be many.
    """

    key: int
    logprobs: list[TokenLogprob | None]


class Returned(Message, frozen=True):
    """To the parent: the result of a `Call`."""

    key: int
    result: Raw
    """A value of the method's type, encoded."""


class Status(Message, frozen=True):
    """To the parent: the response to `GetStatus`."""

    status: EngineStats


ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.FllmError)
}
"""Classes of errors, by name."""


class Failed(Message, frozen=True):
    """To the parent: the request with this key failed."""

    key: int
    kind: str
    """Name of the error's class in `fllm.errors`."""
    message: str
    param: str | None = None
    code: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ERRORS:
            raise ValueError(f"{self.kind!r} is not an error")

    @classmethod
    def from_error(cls, key: int, error: BaseException) -> Failed:
        """Describe an error by its nearest class in `fllm.errors`, or by `BackendError` if it has none."""
        if not isinstance(error, errors.FllmError):
            return cls(key, BackendError.__name__, f"{type(error).__name__}: {error}".rstrip(": "))
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        if isinstance(error, errors.RequestError):
            return cls(key, kind.__name__, error.message, error.param, error.code)
        return cls(key, kind.__name__, error.message)

    def error(self) -> errors.FllmError:
        """Return the error, of the same class as in the child."""
        kind = ERRORS[self.kind]
        if issubclass(kind, errors.ContextTooLong | errors.ModelNotFound):
            return kind(self.message, param=self.param)
        if issubclass(kind, errors.RequestError):
            return kind(self.message, param=self.param, code=self.code)
        return kind(self.message)


ToChild = Start | Generate | Call | Abort | GetStatus | Stop
ToParent = (
    LoadProgress | ModelFile | Started | PromptLogprobs | CacheChanged | Outputs | Returned | Status | Failed
)


class Method(NamedTuple):
    """Types of a method that `Call` calls."""

    arguments: Any
    result: Any
    max_bytes: int = MAX_MESSAGE_BYTES
    """Maximum size of the result, encoded."""


METHODS = {
    "pool": Method(tuple[PoolingRequest], PoolingOutput, MAX_RESULT_BYTES),
    "prepare_images": Method(tuple[list[bytes], str], PreparedImages),
    "load_adapter": Method(tuple[LoraAdapter], None),
    "unload_adapter": Method(tuple[int], None),
}
"""Methods of the abilities that backends may have, by name."""

_decoder: msgpack.Decoder[ToParent] = msgpack.Decoder(ToParent)
_RETURNED = b"\x93\xa8Returned"
"""First bytes of a `Returned`: an array of three items, then the name."""


def decode_to_parent(message: bytearray) -> ToParent:
    """Return a message of an engine; raise `msgspec.ValidationError` if it is too large or invalid."""
    if len(message) > MAX_MESSAGE_BYTES and not message.startswith(_RETURNED):
        raise msgspec.ValidationError(f"it has {len(message)} bytes, more than {MAX_MESSAGE_BYTES}")
    return _decoder.decode(message)


@cache
def messages_version() -> str:
    """Return the version of furiosa-llm and a digest of the types of all messages, which must be the same."""
    types = repr(msgspec.inspect.multi_type_info([ToChild, ToParent]))
    try:
        release = version("furiosa-llm-server")
    except PackageNotFoundError:
        release = "unknown"
    return f"{release} (messages {sha256(types.encode()).hexdigest()[:12]})"
