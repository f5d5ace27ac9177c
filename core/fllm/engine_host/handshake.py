"""Mutual authentication of an engine and its server, before either reads a frame of the other.

The engine proves that it knows the secret of its launch, then the server does (challenge and response with
HMAC-SHA256, as in RFC 2104)::

    server  nonce
    engine  Hello: id, nonce, version    HMAC(secret, "engine" + server's nonce + Hello)
    server  Welcome: version             HMAC(secret, "server" + server's nonce + Hello's digest + Welcome)

Each tag covers both nonces, so an old message is worth nothing, and the name of who made it, so a message is
worth nothing if it is sent back. Others receive 32 random bytes and nothing else. The keys of the frames
come from the secret and the same messages.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct, msgpack

from fllm.engine_host.frames import FrameError

SECRET_BYTES = 32
NONCE_BYTES = 32
TAG_BYTES = 32
MAX_MESSAGE_BYTES = 1024
"""Maximum size of a message before authentication."""

M = TypeVar("M", bound=Struct)
Version = Annotated[str, Meta(max_length=200)]
Nonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class Hello(Struct, frozen=True, tag="fllm engine 1", array_like=True):
    """The engine's message."""

    id: Annotated[str, Meta(max_length=200)]
    """`EngineLaunch.id`."""
    nonce: Nonce
    version: Version
    """Version of the messages that it exchanges later."""


class Welcome(Struct, frozen=True, tag="fllm server 1", array_like=True):
    """The server's answer."""

    version: Version


class Credentials(Struct, frozen=True):
    """What the server knows of an engine that it has started."""

    secret: bytes
    version: str
    """Version of the messages that the server exchanges with it."""


class FrameKeys(Struct, frozen=True):
    """Keys of the frames of a connection, one for each direction."""

    engine: bytes
    """For frames that the engine sends."""
    server: bytes


class ServerHandshake:
    """The server's end of one handshake."""

    def __init__(self, find: Callable[[str], Credentials | None]) -> None:
        self.challenge = secrets.token_bytes(NONCE_BYTES)
        """The first message."""
        self._find = find
        """Returns what is known of the engine with this id."""

    def accept(self, message: bytes | bytearray) -> tuple[Hello, bytes, FrameKeys]:
        """Return what the engine says, the answer and the keys; raise `FrameError` for any other."""
        body, tag = _divide(message)
        hello = _decode(body, Hello)
        known = self._find(hello.id)
        secret = known.secret if known else secrets.token_bytes(SECRET_BYTES)  # takes as long as a known one
        if not hmac.compare_digest(_tag(secret, b"engine", self.challenge, body), tag) or known is None:
            raise FrameError("it is not an engine that this server has started")
        transcript = self.challenge + sha256(body).digest()
        answer = msgpack.encode(Welcome(known.version))
        return hello, answer + _tag(secret, b"server", transcript, answer), _frame_keys(secret, transcript)


class EngineHandshake:
    """The engine's end of one handshake."""

    def __init__(self, secret: bytes, engine_id: str, version: str) -> None:
        self._secret = secret
        self._hello = msgpack.encode(Hello(engine_id, secrets.token_bytes(NONCE_BYTES), version))
        self._challenge = b""

    def answer(self, challenge: bytes | bytearray) -> bytes:
        """Return the answer to the server's first message; raise `FrameError` if that is another one."""
        if len(challenge) != NONCE_BYTES:
            raise FrameError("it is not a server for engines")
        self._challenge = bytes(challenge)
        return self._hello + _tag(self._secret, b"engine", self._challenge, self._hello)

    def accept(self, message: bytes | bytearray) -> tuple[Welcome, FrameKeys]:
        """Return what the server says and the keys; raise `FrameError` unless it knows the secret."""
        body, tag = _divide(message)
        transcript = self._challenge + sha256(self._hello).digest()
        if not hmac.compare_digest(_tag(self._secret, b"server", transcript, body), tag):
            raise FrameError("the server does not know the secret of this engine")
        return _decode(body, Welcome), _frame_keys(self._secret, transcript)


def _tag(secret: bytes, label: bytes, context: bytes, body: bytes) -> bytes:
    """Return the tag of a message. Label and context have a fixed length, so nothing else has the same."""
    return hmac.digest(secret, label + context + body, "sha256")


def _frame_keys(secret: bytes, transcript: bytes) -> FrameKeys:
    return FrameKeys(*(_tag(secret, label, transcript, b"frames") for label in (b"e-keys", b"s-keys")))


def _divide(message: bytes | bytearray) -> tuple[bytes, bytes]:
    return bytes(message[:-TAG_BYTES]), bytes(message[-TAG_BYTES:])


def _decode(body: bytes, kind: type[M]) -> M:
    try:
        return msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError("it does not speak the protocol of engines") from error
