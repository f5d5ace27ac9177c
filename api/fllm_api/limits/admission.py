"""Admission of requests by the capacity of the server and the limits of each client."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from litestar.exceptions import HTTPException

from fllm.values import ModelCard
from fllm_api.config import RateLimits, ServerConfig
from fllm_api.limits.client_limits import ClientLimits, ClientUsage, TokenCounter

DEFAULT_MAX_NUM_SEQS = 256
"""Concurrency assumed for backends that do not report ``max_num_seqs`` (vLLM's default)."""
RESERVED_PART = 8
"""A part of the capacity, one in this number, that is added for clients that hold no more than that."""
BACKGROUND_PART = 2
"""A part of the capacity, one in this number, that requests in the background leave free."""


class ServerBusy(HTTPException):
    """The server is at capacity: 503."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            status_code=503,
            detail=f"the server is busy: {reason}",
            headers={"Retry-After": "1"},
            extra={"code": "server_busy"},
        )


class Admission:
    """Counts the sequences in flight of all clients, and enforces the limits of each client."""

    def __init__(
        self,
        capacity: int,
        limits: RateLimits,
        owner_limits: Mapping[str, RateLimits] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.capacity = capacity
        self.in_flight = 0
        self.in_background = 0
        """Sequences in flight that run in the background. No other request is rejected because of them."""
        self._held: Counter[str] = Counter()
        """Sequences in flight of each client, without those in the background."""
        limited = limits != RateLimits() or owner_limits
        self._clients = ClientLimits(limits, owner_limits or {}, clock) if limited else None

    def admit(self, client: str, request: TokenCounter, *, background: bool = False) -> AdmissionSlot:
        """Admit a request whose body is not read yet, counted as one sequence.

        One in the background needs half of the server's capacity and of the client's tokens, and is not
        counted for the others. Raise `RateLimited` (429) or `ServerBusy` (503).
        """
        usage = None if self._clients is None else self._clients.usage_of(client)
        if usage is not None:
            usage.start_request(request, background=background)
        slot = AdmissionSlot(self, client, usage, request, background=background)
        try:
            slot.take(1)
        except ServerBusy:
            slot.release()
            raise
        return slot

    def hold(self, client: str, sequences: int) -> None:
        """Count more sequences of a client, or fewer if negative. Raise `ServerBusy` without counting them.

        A client with few sequences has room beyond the capacity, so that others can't fill all of it.
        """
        held = self._held[client] + sequences
        reserve = self.capacity // RESERVED_PART
        if sequences > 0 and self.in_flight + sequences > self.capacity + (reserve if held <= reserve else 0):
            raise ServerBusy(f"it is at its capacity of {self.capacity} running and waiting sequences")
        self.in_flight += sequences
        self._held[client] = held
        if not held:
            del self._held[client]

    def hold_in_background(self, sequences: int, *, own: int = 0) -> None:
        """Count more sequences in the background, or fewer if negative; the request has ``own`` already.

        Raise `ServerBusy` without counting them if too little stays free. A request that would never fit is
        admitted once the others have half of what the background may have.
        """
        most = self.capacity - self.capacity // BACKGROUND_PART
        others, needed = self.in_flight + self.in_background - own, own + sequences
        if sequences > 0 and others + (needed if needed <= most else most // 2) > most:
            raise ServerBusy("it has no room in the background")
        self.in_background += sequences


class AdmissionSlot:
    """The capacity that one request occupies, from its admission to `release`."""

    def __init__(
        self,
        admission: Admission,
        client: str,
        usage: ClientUsage | None,
        request: TokenCounter,
        *,
        background: bool,
    ) -> None:
        self._background = background
        self._admission = admission
        self._client = client
        self._usage = usage
        self._request = request
        self._sequences = 0
        self._released = False
        self._charged = 0
        """Prompt tokens charged so far."""
        self._reserved = 0
        """Those of them that were charged when capacity was reserved last."""

    @property
    def max_sequences(self) -> int:
        """Maximum number of sequences that the client of the request may ever have in flight."""
        return sys.maxsize if self._usage is None else self._usage.max_sequences

    def charge(self, tokens: int) -> None:
        """Charge the client for prompt tokens that have been read, whether or not the request is accepted."""
        self._charged += tokens
        if self._usage is not None:
            self._usage.charge_prompt(tokens)

    def reserve(self, sequences: int, prompt_tokens: int) -> None:
        """Reserve capacity for all sequences of the request, and charge what is not charged of its prompts.

        A request may generate several times, one after the other: each time, its prompts are charged.
        Raise `RateLimited` if other requests have used all tokens meanwhile, or `ServerBusy`.
        """
        if self._usage is not None:
            self._usage.check_tokens(own=self._charged)
        more = sequences - self._sequences
        if self._usage is not None:
            self._usage.add_sequences(self._request, more)
        self.take(more)
        self.charge(prompt_tokens - (self._charged - self._reserved))
        self._reserved = self._charged

    def take(self, sequences: int) -> None:
        """Occupy more sequences; raise `ServerBusy` if they exceed the free capacity."""
        self._hold(sequences)
        self._sequences += sequences

    def release(self) -> None:
        """Free all capacity; the request is complete. Calling this again has no effect."""
        if self._released:
            return
        self._released = True
        self._hold(-self._sequences)
        self._sequences = 0
        if self._usage is not None:
            self._usage.end_request(self._request)

    def _hold(self, sequences: int) -> None:
        if self._background:
            self._admission.hold_in_background(sequences, own=self._sequences)
        else:
            self._admission.hold(self._client, sequences)

    def headers(self) -> dict[str, str]:
        """Return the client's rate-limit headers; none if it has no token limit."""
        return {} if self._usage is None else self._usage.headers()


def max_sequences(card: ModelCard, config: ServerConfig) -> int:
    """Return the maximum number of sequences of one request: what the server, and any client, may have."""
    limits = (config.limits, *config.owner_limits.values())
    most = max(each.concurrency or sys.maxsize for each in limits)
    return min(sequence_capacity([card], config), most)


def sequence_capacity(cards: Iterable[ModelCard | None], config: ServerConfig) -> int:
    """Return the maximum number of sequences of all models that run or wait."""
    reported = [None if card is None else card.runtime.get("max_num_seqs") for card in cards]
    return config.max_queue + sum(
        running if isinstance(running, int) else DEFAULT_MAX_NUM_SEQS for running in reported
    )
