"""The memory that request bodies hold: the bytes that are received, and the objects they are decoded to."""

from __future__ import annotations

import asyncio

from litestar.exceptions import HTTPException
from msgspec import Struct

from fllm.concurrency.round_robin_semaphore import RoundRobinSemaphore
from fllm.concurrency.turn_executor import Pieces, TurnExecutor, run_at_once
from fllm.errors import RequestError
from fllm_api.limits.admission import ServerBusy
from fllm_api.limits.heap_trimmer import HeapTrimmer

SMALL_BODY = 64 * 1024
"""Bytes of a body that is received without a turn. The number of connections bounds what they hold."""
MAX_WAITING = 64
"""Requests of one client that may wait. Each has a connection, with the data that came with the headers."""
GROWTH = 1024 * 1024
"""Bytes that a body of unknown length reserves at a time."""
LARGE_BODY = 1024 * 1024
"""Bytes of a body after which freed memory is returned to the system."""

MAX_JSON_VALUES = 2**20
"""Maximum number of values in a body.

As Python objects they need about fifty times the memory of their text, and decoding blocks the event loop.
"""
PIECE_BYTES = 256 * 1024
"""Bytes of a body that are counted at once."""
TEXT_COPIES = 3
"""Copies of a text that exist at once: decoded, in a message that the template builds, and in the prompt."""
BRACKET_BYTES = 104
"""Memory of one list or object, with its place in another one (CPython 3.11)."""
COMMA_BYTES = 56
"""Memory of one value, such as a short string, with its place in a list."""
_FOUR_BYTE_LEADS = tuple(bytes([lead]) for lead in range(0xF0, 0xF5))


class BodyMemory:
    """Memory for the bodies of all requests. One half is for bytes, the other for decoded objects.

    The halves are separate, because a request holds its bytes while it waits for the memory of its objects:
    those who hold that memory never wait for more.
    """

    def __init__(
        self, size: int, *, max_wait: float, keeps_bytes: bool = False, turns: TurnExecutor | None = None
    ) -> None:
        self.received = RoundRobinSemaphore(size // 2, dynamic_shares=True)
        self.decoded = RoundRobinSemaphore(size // 2, dynamic_shares=True)
        self.max_wait = max_wait
        """Seconds that a request waits before its body is read; 0 means no limit."""
        self.keeps_bytes = keeps_bytes
        """Whether the bytes of a body are kept until its request ends, as the payload log does."""
        self.turns = turns
        """Counts the values of large bodies; without it, they are counted on the event loop."""
        self.trimmer = HeapTrimmer()


class BodyReservation:
    """What the body of one request holds."""

    def __init__(self, memory: BodyMemory, client: str) -> None:
        self._memory = memory
        self._client = client
        self._received = 0
        self._decoded = 0

    async def receive(self, size: int) -> None:
        """Reserve the bytes of a body of known length, before any of it is read.

        Raise `ServerBusy` if they are not free in time, `HTTPException` (413) if they never will be.
        """
        memory = self._memory
        self._check_size(size)
        if not memory.received.try_acquire(self._client, size):
            await self._wait(size)
        self._received = size

    def grow(self, size: int) -> None:
        """Reserve ``size`` bytes in all for a body of unknown length. Raise as `receive`, but never wait.

        Requests that hold memory and wait for more could wait for each other.
        """
        if size <= max(self._received, SMALL_BODY):
            return
        self._check_size(size)
        target = min(-(-size // GROWTH) * GROWTH, self._memory.received.units)
        if not self._memory.received.try_acquire(self._client, target - self._received):
            raise _busy()
        self._received = target

    async def decode(self, body: bytes, max_values: int) -> None:
        """Reserve the memory of the objects that a body is decoded to. The first call counts.

        Raise `RequestError` if it has more than ``max_values`` values.
        """
        if self._decoded:
            return
        counts = await self._count(body)
        if counts.values > max_values:
            raise RequestError(f"the body has about {counts.values} values; the maximum is {max_values}")
        size = min(counts.decoded_size, self._memory.decoded.units)
        await self._memory.decoded.acquire(self._client, size)
        self._decoded = size

    async def _count(self, body: bytes) -> BodyCounts:
        turns = self._memory.turns
        if turns is None or len(body) <= LARGE_BODY:
            return run_at_once(count_body(body))
        return await turns.run(count_body(body), self._client)

    def discard(self) -> None:
        """Return the memory of a body whose content is not used any more."""
        if not self._memory.keeps_bytes:
            self.release()
        elif self._decoded:
            self._memory.decoded.release(self._client, self._decoded)
            self._decoded = 0

    def release(self) -> None:
        """Return all memory."""
        if self._received + self._decoded >= LARGE_BODY:
            self._memory.trimmer.schedule()
        if self._received:
            self._memory.received.release(self._client, self._received)
        if self._decoded:
            self._memory.decoded.release(self._client, self._decoded)
        self._received = self._decoded = 0

    def _check_size(self, size: int) -> None:
        units = self._memory.received.units
        if size > units:
            raise HTTPException(
                status_code=413,
                detail=f"the body has {size} bytes or more; this server holds {units} at most",
            )

    async def _wait(self, size: int) -> None:
        memory = self._memory
        if memory.received.waiting(self._client) >= MAX_WAITING:
            raise _busy()
        try:
            async with asyncio.timeout(memory.max_wait or None):
                await memory.received.acquire(self._client, size)
        except TimeoutError:
            raise _busy() from None


class BodyCounts(Struct):
    """What the memory of a body's objects depends on."""

    size: int
    brackets: int = 0
    commas: int = 0
    has_escapes: bool = False
    is_ascii: bool = True
    is_wide: bool = False
    """Whether a character is beyond 16 bits."""

    @property
    def values(self) -> int:
        """About the number of values in the body."""
        return self.brackets + self.commas

    @property
    def decoded_size(self) -> int:
        """Upper bound of the memory of the body's objects, and of the prompt that is made of them.

        A string takes one byte per character, two with a character beyond Latin-1, four with one beyond 16
        bits.
        """
        character_bytes = 4 if self.has_escapes or self.is_wide else 1 if self.is_ascii else 2
        text = self.size * TEXT_COPIES * character_bytes
        return max(text + self.brackets * BRACKET_BYTES + self.commas * COMMA_BYTES, 1)


def count_body(body: bytes) -> Pieces[BodyCounts]:
    """Return the counts of a body; the work is done in pieces."""
    counts = BodyCounts(len(body))
    for start in range(0, len(body), PIECE_BYTES):
        end = start + PIECE_BYTES
        counts.brackets += body.count(b"{", start, end) + body.count(b"[", start, end)
        counts.commas += body.count(b",", start, end)
        if not counts.has_escapes and (first := body.find(b"\\", start, end)) >= 0:
            counts.has_escapes = body.find(b"\\u", first, end + 1) >= 0
        if not counts.is_wide and not body[start:end].isascii():
            counts.is_ascii = False
            counts.is_wide = any(body.find(lead, start, end) >= 0 for lead in _FOUR_BYTE_LEADS)
        yield 0
    return counts


def _busy() -> ServerBusy:
    return ServerBusy("the bodies of other requests occupy the memory for bodies")
