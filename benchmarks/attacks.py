"""Send what a hostile client sends, one kind at a time, used by ``soak.py --hostile``.

::

    python benchmarks/attacks.py http://localhost:8000 "slow grammars" --model m --api-key k --seconds 20

It prints how often each outcome occurred, as JSON. `ATTACKS` defines the kinds and the number of connections.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp

NICENESS = 19
"""Lowest priority, since a hostile client usually has a machine of its own."""
TOKENS = 200
AMBIGUOUS = 'start: e\ne: e e | "a" | "b" | "ab" | /[a-z ]/ | /[a-z]+/'
"""A grammar whose masks take longer with each token."""
BODY_BYTES = 16 << 20
PROMPTS = 2000
TOO_LONG = "word " * 100_000
"""A prompt that does not fit into any context."""
HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
)


class Attacker:
    """A client that sends hostile requests to a server."""

    def __init__(self, session: aiohttp.ClientSession, url: str, model: str, key: str) -> None:
        self._session = session
        address = urlsplit(url)
        self._address = (address.hostname or "localhost", address.port or 80)
        self._model = model
        self._key = key
        self._numbers = itertools.count(random.randrange(1 << 40))

    async def slow_grammar(self) -> str:
        """Generate several sequences with an ambiguous grammar."""
        return await self._chat(guided_grammar=AMBIGUOUS, n=8, max_tokens=TOKENS, ignore_eos=True)

    async def slow_schema(self) -> str:
        """Send a schema that takes long to compile, and leave after 60 ms."""
        names = [f"p{next(self._numbers)}" for _ in range(400)]
        properties = {name: {"type": "string", "pattern": "^([a-z]{1,9} ){1,99}$"} for name in names}
        return await self._leave_after(0.06, guided_json={"type": "object", "properties": properties})

    async def large_body(self) -> str:
        """Send a body of megabytes, with a prompt that is too long."""
        body = (
            b'{"model": "m", "messages": [{"role": "user", "content": "'
            + b"a b " * (BODY_BYTES // 4)
            + b'"}]}'
        )
        return await self._post(
            "/v1/chat/completions", data=body, headers={"content-type": "application/json"}
        )

    async def long_prompts(self) -> str:
        """Send thousands of prompts, of which the last one is too long."""
        prompts = [f"{next(self._numbers)} " + "of them " * 500] * PROMPTS
        return await self._complete(prompt=[*prompts, TOO_LONG], max_tokens=1)

    async def logprobs(self) -> str:
        """Request the log-probabilities of all tokens of many sequences."""
        return await self._complete(prompt="a b c " * 60, echo=True, logprobs=5, n=32, max_tokens=32)

    async def slow_reader(self) -> str:
        """Request a long stream and do not read it."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, self._address)
        _, writer = await asyncio.open_connection(sock=connection, limit=1024)
        body = self._body(stream=True, n=4, max_tokens=TOKENS, ignore_eos=True)
        encoded = json.dumps(body).encode()
        writer.write(HEAD.format(key=self._key, length=len(encoded)).encode() + encoded)
        try:
            await asyncio.sleep(20)
        finally:
            writer.close()
        return "not read"

    async def slow_sender(self) -> str:
        """Send a request one byte per second."""
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            for byte in HEAD.format(key=self._key, length=1000).encode() + b"{" * 1000:
                writer.write(bytes([byte]))
                await writer.drain()
                if reader.at_eof():
                    break
                await asyncio.sleep(1)
        finally:
            writer.close()
        return "closed by the server"

    async def flood(self) -> str:
        """Open a connection, send half of a request, and close it."""
        _, writer = await asyncio.open_connection(*self._address)
        writer.write(HEAD.format(key=self._key, length=10).encode())
        await asyncio.sleep(random.random())
        writer.transport.abort()
        return "closed"

    async def early_leaver(self) -> str:
        """Leave a request for many tokens before its response."""
        return await self._leave_after(random.random() * 0.3, max_tokens=TOKENS, n=4, ignore_eos=True)

    async def _leave_after(self, seconds: float, **fields: Any) -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._chat(**fields)
        return "left"

    async def _chat(self, **fields: Any) -> str:
        return await self._post("/v1/chat/completions", json=self._body(**fields))

    async def _complete(self, **fields: Any) -> str:
        return await self._post("/v1/completions", json={"model": self._model, **fields})

    async def _post(self, path: str, **arguments: Any) -> str:
        async with self._session.post(path, **arguments) as response:
            await response.read()
            return str(response.status)

    def _body(self, **fields: Any) -> dict[str, Any]:
        text = f"{next(self._numbers)}: tell me more"
        return {"model": self._model, "messages": [{"role": "user", "content": text}], **fields}


ATTACKS: dict[str, tuple[int, Callable[[Attacker], Awaitable[str]]]] = {
    "slow grammars": (4, Attacker.slow_grammar),
    "slow schemas, left early": (16, Attacker.slow_schema),
    "large bodies": (8, Attacker.large_body),
    "too long prompts": (12, Attacker.long_prompts),
    "log-probabilities": (4, Attacker.logprobs),
    "slow readers": (64, Attacker.slow_reader),
    "slow senders": (500, Attacker.slow_sender),
    "connection flood": (200, Attacker.flood),
    "requests left early": (32, Attacker.early_leaver),
}
"""Number of connections, and what each of them does again and again."""


async def attack(url: str, name: str, model: str, key: str, seconds: float) -> Counter[str]:
    """Send an attack for a time, or until cancelled; return the outcomes."""
    outcomes: Counter[str] = Counter()
    connections, send = ATTACKS[name]
    headers = {"authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector, headers=headers) as session:
        attacker = Attacker(session, url, model, key)

        async def repeat() -> None:
            while True:
                try:
                    outcomes[await send(attacker)] += 1
                except (aiohttp.ClientError, OSError) as error:
                    outcomes[type(error).__name__] += 1
                    await asyncio.sleep(0.05)

        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for _ in range(connections):
                    group.create_task(repeat())
    return outcomes


async def main() -> None:
    """Send an attack until the time is up or SIGTERM arrives, and print the outcomes."""
    options = parse_arguments()
    os.nice(NICENESS)
    attacking = asyncio.create_task(
        attack(options.url, options.attack, options.model, options.api_key, options.seconds)
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, attacking.cancel)
    print(json.dumps(await attacking))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Send what a hostile client sends.")
    parser.add_argument("url")
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("--model", default="m")
    parser.add_argument("--api-key", default="")
    parser.add_argument("--seconds", type=float, default=20.0)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
