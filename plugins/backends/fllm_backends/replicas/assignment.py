"""One request at one replica: what it reserves there, from its selection to its end."""

from __future__ import annotations

from collections.abc import Sequence

from fllm_backends.replicas.replica import DECODE_WORK, Replica

PROBATION_TOKENS = 16
"""Tokens after which a request that may have ended engines is no longer suspected."""


class Assignment:
    """The reservation of a request. It counts from its selection on, so that the next request sees it."""

    def __init__(self, replica: Replica, prefill: int, hashes: Sequence[bytes]) -> None:
        """Reserve ``prefill`` tokens of work, and the blocks with these hashes."""
        self.replica = replica
        self.node = replica.node
        """Name of the machine of its engine."""
        self.started = False
        """Whether an output has arrived."""
        self.tokens = 0
        """Number of tokens that have arrived."""
        self._on_probation = False
        self._exits = replica.exits
        self._prefill = prefill
        self._hashes = hashes
        replica.requests += 1
        replica.unstarted += 1
        replica.selected += 1
        replica.work += prefill + DECODE_WORK
        replica.expect(hashes)

    @property
    def engine_ended(self) -> bool:
        """Whether the engine has ended since the selection."""
        return self.replica.exits != self._exits

    def begin_probation(self) -> None:
        """Keep other suspects away from the replica until this one has `PROBATION_TOKENS`."""
        self._on_probation = True
        self.replica.suspects += 1

    def record_output(self, tokens: int = 0) -> None:
        """Record an output. The first one shows that the prompt is computed: the cache has reported it."""
        self.replica.outputs += 1
        self.tokens += tokens
        if not self.started:
            self._release_prefill()
        if self._on_probation and self.tokens >= PROBATION_TOKENS:
            self._end_probation()

    def end(self) -> None:
        """Free what is reserved."""
        if not self.started:
            self._release_prefill()
        if self._on_probation:
            self._end_probation()
        self.replica.work -= DECODE_WORK
        self.replica.drop_request()

    def _end_probation(self) -> None:
        self._on_probation = False
        self.replica.drop_suspect()

    def _release_prefill(self) -> None:
        self.started = True
        self.replica.drop_unstarted()
        self.replica.work -= self._prefill
        if not self.engine_ended:
            self.replica.unexpect(self._hashes)
