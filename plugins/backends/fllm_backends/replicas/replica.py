"""One replica: an engine, the work that it has, and what its prefix cache holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Literal

from msgspec.structs import replace

from fllm import Backend, CacheChanges, EngineStats, FllmError
from fllm.stats import add_stats
from fllm.values import ReplicaStats

STATUS_TIMEOUT = 1.0
"""Seconds until the latest known numbers of a replica are used instead of its response."""

DECODE_WORK = 16
"""Tokens of prefill that a request counts for while it decodes: it takes a part of each step."""

MAX_BLOCKS = 1 << 22
"""Maximum number of blocks that are known of one replica. Beyond, all are forgotten."""

ReplicaState = Literal["starting", "ready", "draining", "drained", "down"]


class Replica:
    """The state of one replica, which is its `EngineObserver`. All of it belongs to the event loop."""

    backend: Backend
    """Set by the owner, because it is created with this object."""

    def __init__(self, name: str, notify: Callable[[Replica], None]) -> None:
        """Create a replica. ``notify`` is called with it when its state changes."""
        self.name = name
        self.draining = False
        """Whether it gets no new requests."""
        self.stalled = False
        """Whether it has made no progress for a while."""
        self.unanswered = 0
        """Number of status checks since its latest response."""
        self.node = ""
        """Name of the machine of its engine; empty if it is unknown."""
        self.exits = 0
        """Number of times that its engine has ended."""
        self.work = 0
        """Tokens that its requests leave to prefill, and `DECODE_WORK` for each request."""
        self.requests = 0
        """Number of requests in flight."""
        self.unstarted = 0
        """Number of those without an output."""
        self.suspects = 0
        """Number of those that may have ended other engines, and have not run for long here."""
        self.selected = 0
        """Number of requests that it got."""
        self.retries = self.resumptions = 0
        """Requests that another replica had to begin again, or to continue."""
        self.outputs = 0
        """Number of outputs that it returned."""
        self.adapters: set[int] = set()
        """Ids of the adapters that its backend has loaded."""
        self.failed_adapters: set[int] = set()
        """Ids of those that its engine could not load; the next engine tries again."""
        self.stats = EngineStats()
        """Latest status of the current engine."""
        self._earlier = EngineStats()
        """Totals of earlier engines."""
        self._cached: set[bytes] = set()
        """Hashes of the blocks that its prefix cache holds."""
        self._expected: dict[bytes, int] = {}
        """Number of its requests that are about to compute a block, by the block's hash."""
        self._progress: tuple[int, int, int] | None = None
        self._silent_checks = 0
        self._ready = False
        self._started = False
        self._notify = notify

    @property
    def ready(self) -> bool:
        """Whether its engine serves requests."""
        return self._ready

    @property
    def accepts(self) -> bool:
        """Whether it may get a new request."""
        return self._ready and not self.draining

    @property
    def queued_tokens(self) -> int:
        """Number of tokens that its requests leave to prefill."""
        return self.work - DECODE_WORK * self.requests

    @property
    def state(self) -> ReplicaState:
        """What it does, in a word."""
        if not self._ready:
            return "down" if self._started else "starting"
        if self.draining:
            return "draining" if self.requests else "drained"
        return "ready"

    def report(self) -> ReplicaStats:
        """Return what is known about it."""
        return ReplicaStats(
            name=self.name,
            state=self.state,
            stats=self.total_stats(),
            requests=self.requests,
            queued_tokens=self.queued_tokens,
            total_requests=self.selected,
            retries=self.retries,
            resumptions=self.resumptions,
            restarts=self.exits,
        )

    def total_stats(self) -> EngineStats:
        """Return its numbers, with the running totals of all its engines."""
        return add_stats(self._earlier, self.stats)

    async def update_stats(self) -> None:
        """Ask a replica that is ready for its numbers; keep the latest known ones if it does not answer."""
        if not self._ready:
            return
        exits = self.exits
        try:
            async with asyncio.timeout(STATUS_TIMEOUT):
                stats = await self.backend.status()
        except (FllmError, TimeoutError):
            self.unanswered += 1
            return
        self.unanswered = 0
        if self.exits == exits:
            self.stats = stats

    def count_silent_checks(self) -> int:
        """Return at how many checks in a row, this one included, it had something to do and has done nothing.

        Checks are counted, not seconds, because the server may have been suspended.
        """
        progress = (self.exits, self.outputs, self.stats.steps)
        busy = self._ready and bool(self.unstarted or self.stats.running or self.stats.waiting)
        if not busy or progress != self._progress:
            self._progress, self._silent_checks = progress, 0
        else:
            self._silent_checks += 1
        return self._silent_checks

    def count_cached(self, hashes: Sequence[bytes]) -> int:
        """Return how many of the first blocks its cache holds, or will hold after the prefills in flight."""
        count = len(list(takewhile(self._cached.__contains__, hashes)))
        while count < len(hashes) and (hashes[count] in self._expected or hashes[count] in self._cached):
            count += 1
        return count

    def expect(self, hashes: Sequence[bytes]) -> None:
        """Record that a request is about to compute these blocks."""
        for block_hash in hashes:
            self._expected[block_hash] = self._expected.get(block_hash, 0) + 1

    def unexpect(self, hashes: Sequence[bytes]) -> None:
        """Take back `expect`: the blocks are computed, or never will be."""
        for block_hash in hashes:
            count = self._expected.get(block_hash, 0)
            if count > 1:
                self._expected[block_hash] = count - 1
            elif count:
                del self._expected[block_hash]

    def drop_unstarted(self) -> None:
        """Record that one of its requests has its first output, or has ended without one."""
        self.unstarted -= 1
        if not self.unstarted:
            self._notify(self)

    def drop_suspect(self) -> None:
        """Record that one of its requests is no longer a suspect, or has ended."""
        self.suspects -= 1
        if not self.suspects:
            self._notify(self)

    def drop_request(self) -> None:
        """Record that one of its requests has ended."""
        self.requests -= 1
        if self.draining and not self.requests:
            self._notify(self)

    def record_loss(self, *, started: bool) -> None:
        """Record that another replica begins one of its requests again, or continues one that has begun."""
        self.resumptions += started
        self.retries += not started

    def on_ready(self, node: str = "") -> None:
        """Record that an engine serves requests, whose cache is empty."""
        if not self._ready:
            self._ready = self._started = True
            self.node = node
            self.unanswered = 0
            self._notify(self)

    def on_exit(self) -> None:
        """Record that the engine has ended, with all that its cache held."""
        if not self._ready:
            return
        self._ready = False
        self.exits += 1
        self.failed_adapters.clear()
        self._earlier = add_stats(self._earlier, without_gauges(self.stats))
        self.stats = EngineStats()
        self._cached.clear()
        self._expected.clear()
        self._notify(self)

    def on_cache_change(self, changes: CacheChanges) -> None:
        """Record what the cache has gained and lost."""
        self._cached.update(changes.gained)
        if len(self._cached) > MAX_BLOCKS:  # of an engine that does not report what it loses
            self._cached.clear()
        for block_hash in changes.lost:
            self._cached.discard(block_hash)
            self._expected.pop(block_hash, None)


GAUGES = ("running", "waiting", "kv_blocks", "kv_blocks_used", "memory", "drafters_off")
"""Fields of `EngineStats` that are not running totals."""


def without_gauges(stats: EngineStats) -> EngineStats:
    """Return the running totals, which outlive an engine."""
    tiers = {name: replace(tier, used_bytes=0, limit_bytes=0) for name, tier in stats.cache_tiers.items()}
    return replace(stats, **dict.fromkeys(GAUGES, 0), cache_tiers=tiers)
