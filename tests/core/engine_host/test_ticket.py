"""A ticket is read from the standard input of an engine, and nothing after it."""

from __future__ import annotations

from io import BytesIO

import pytest

from fllm import ConfigError
from fllm.engine_host import Ticket, read_ticket

TICKET = Ticket(host="10.0.0.1", port=7000, id="replica-0.1", secret=b"very secret", fingerprint=b"f" * 32)


def test_a_ticket_is_read_and_the_input_after_it_is_not() -> None:
    stream = BytesIO(TICKET.encode() + b"later")
    assert read_ticket(stream) == TICKET
    assert stream.read() == b"later"


def test_the_secret_is_not_shown() -> None:
    assert "secret" not in repr(TICKET)


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"hello\n", TICKET.encode()[:-1], bytes(4), b"\xff" * 5000]
)
def test_anything_else_is_an_error_of_one_line(content: bytes) -> None:
    with pytest.raises(ConfigError, match="has no ticket") as caught:
        read_ticket(BytesIO(content))
    assert "\n" not in str(caught.value)
