"""Prompts that are refused while their bodies are read."""

from __future__ import annotations

from collections.abc import AsyncIterator

from support.api_fakes import a_server, ask, error_of

JSON = {"content-type": "application/json"}


class Body:
    """A body in pieces, which counts those that are read."""

    def __init__(self, beginning: bytes, end: bytes = b'"}', pieces: int = 100) -> None:
        self.read = 0
        self._beginning = beginning
        self._end = end
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._beginning
        for _ in range(self._pieces):
            self.read += 1
            yield b"a" * 1000
        yield self._end


def test_a_prompt_that_certainly_exceeds_the_context_is_not_read_to_its_end() -> None:
    body = Body(b'{"model":"m","prompt":"')
    response = ask(a_server(), "POST", "/v1/completions", content=body, headers=JSON)
    assert (response.status_code, error_of(response)["code"]) == (400, "context_length_exceeded")
    assert error_of(response)["param"] == "prompt"
    assert body.read < 100


def test_other_large_bodies_are_read() -> None:
    body = Body(b'{"model":"m","prompt":"Hi","user":"')
    assert ask(a_server(), "POST", "/v1/completions", content=body, headers=JSON).status_code == 200
    messages = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"prompt":"'
    body = Body(messages)
    assert ask(a_server(), "POST", "/v1/chat/completions", content=body, headers=JSON).status_code == 200
    assert body.read == 100
