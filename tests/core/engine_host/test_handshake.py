"""Engine and server prove that they know one secret; nobody else gets further than a challenge."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.engine_host.frames import FrameError
from fllm.engine_host.handshake import (
    MAX_MESSAGE_BYTES,
    NONCE_BYTES,
    Credentials,
    EngineHandshake,
    ServerHandshake,
)

SECRET = b"s" * 32
KNOWN = {"replica-0.1": Credentials(SECRET, "1.0"), "replica-1.2": Credentials(b"o" * 32, "1.0")}


def server() -> ServerHandshake:
    return ServerHandshake(KNOWN.get)


def engine(secret: bytes = SECRET, name: str = "replica-0.1", version: str = "1.0") -> EngineHandshake:
    return EngineHandshake(secret, name, version)


def test_both_ends_agree_on_keys_that_differ_by_direction_and_connection() -> None:
    connections = []
    for _ in range(2):
        ours, theirs = server(), engine(version="1.1")
        hello, answer, keys = ours.accept(theirs.answer(ours.challenge))
        welcome, same = theirs.accept(answer)
        assert (hello.id, hello.version, welcome.version) == ("replica-0.1", "1.1", "1.0")
        assert keys == same
        connections.append(keys)
    assert len({key for keys in connections for key in (keys.engine, keys.server)}) == 4


@pytest.mark.parametrize(
    "other",
    [
        engine(secret=b"x" * 32),
        engine(name="replica-1.2"),
        engine(name="nobody"),
        engine(secret=b""),
    ],
    ids=["another secret", "the name of another engine", "an unknown name", "no secret"],
)
def test_an_engine_without_the_secret_of_its_name_is_refused(other: EngineHandshake) -> None:
    ours = server()
    with pytest.raises(FrameError, match="not an engine that this server has started"):
        ours.accept(other.answer(ours.challenge))


def test_a_server_without_the_secret_is_refused() -> None:
    theirs = engine()
    impostor = ServerHandshake({"replica-0.1": Credentials(b"x" * 32, "1.0")}.get)
    message = theirs.answer(impostor.challenge)
    with pytest.raises(FrameError, match="not an engine"):
        impostor.accept(message)
    for answer in (b"", b"x" * 200, message, impostor.challenge):
        with pytest.raises(FrameError, match="does not know the secret"):
            theirs.accept(answer)


def test_a_message_is_worth_nothing_in_another_handshake() -> None:
    first, second, theirs = server(), server(), engine()
    message = theirs.answer(first.challenge)
    _, answer, _ = first.accept(message)
    with pytest.raises(FrameError):
        second.accept(message)
    later = engine()
    later.answer(first.challenge)
    with pytest.raises(FrameError):
        later.accept(answer)


def test_a_message_is_worth_nothing_if_it_is_sent_back() -> None:
    ours, theirs = server(), engine()
    message = theirs.answer(ours.challenge)
    _, answer, _ = ours.accept(message)
    with pytest.raises(FrameError):
        ours.accept(answer)
    with pytest.raises(FrameError):
        theirs.accept(message)


def _changed(message: bytes) -> st.SearchStrategy[bytes]:
    flipped = st.integers(0, 8 * len(message) - 1).map(
        lambda bit: message[: bit // 8] + bytes([message[bit // 8] ^ 1 << bit % 8]) + message[bit // 8 + 1 :]
    )
    cut = st.integers(0, len(message) - 1).map(lambda size: message[:size])
    longer = st.binary(min_size=1, max_size=8).map(lambda more: message + more)
    return st.one_of(flipped, cut, longer)


@given(st.data())
def test_a_changed_message_is_refused(data: st.DataObject) -> None:
    ours, theirs = server(), engine()
    message = theirs.answer(ours.challenge)
    with pytest.raises(FrameError):
        ours.accept(data.draw(_changed(message)))
    _, answer, _ = ours.accept(message)
    with pytest.raises(FrameError):
        theirs.accept(data.draw(_changed(answer)))


@given(st.binary(max_size=300))
def test_any_bytes_of_others_are_refused_and_nothing_else_happens(message: bytes) -> None:
    ours, theirs = server(), engine()
    refusals: tuple[Callable[[], object], ...] = (
        lambda: ours.accept(message),
        lambda: theirs.accept(message),
    )
    for refusal in refusals:
        with pytest.raises(FrameError):
            refusal()
    if len(message) != NONCE_BYTES:
        with pytest.raises(FrameError, match="not a server for engines"):
            theirs.answer(message)


def test_the_longest_message_fits_the_limit() -> None:
    message = engine(name="\U0001f40d" * 110, version="v" * 200).answer(b"c" * NONCE_BYTES)
    assert len(message) <= MAX_MESSAGE_BYTES
