"""Usage and limits of each client: its requests in flight and its tokens."""

from __future__ import annotations

import math
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol

from litestar.exceptions import HTTPException

from fllm_api.api_keys import OWNER
from fllm_api.config import RateLimits
from fllm_api.limits.token_bucket import TokenBucket

EVICTION_CHECKS = 2
"""Clients checked for eviction on each lookup. Two per lookup keep the table bounded."""


class TokenCounter(Protocol):
    """A request that reports the number of tokens generated so far."""

    @property
    def generated_tokens(self) -> int: ...


class ClientUsage:
    """Requests in flight and tokens of one client."""

    def __init__(self, limits: RateLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._charged: dict[TokenCounter, int] = {}
        """Generated tokens already charged, by request in flight."""
        self._sequences: Counter[TokenCounter] = Counter()
        """Sequences of each request in flight."""
        self._background: set[TokenCounter] = set()
        """Requests in flight in the background. No other request is rejected because of their sequences."""
        self._bucket = TokenBucket(limits.tokens_per_minute, clock) if limits.tokens_per_minute else None

    def start_request(self, request: TokenCounter, *, background: bool = False) -> None:
        """Count a new request as in flight; raise `RateLimited`.

        One in the background needs half of the tokens of a minute.
        """
        if background:
            self._background.add(request)
        try:
            self.add_sequences(request, 1)
            self.check_tokens(request=request)
        except RateLimited:
            self._forget(request)
            raise
        self._charged[request] = 0

    def add_sequences(self, request: TokenCounter, sequences: int) -> None:
        """Count more sequences of a request; raise `RateLimited` if the client may not have as many."""
        limit, held = self._limits.concurrency, self._sequences.total()
        if request not in self._background:
            held -= sum(self._sequences[each] for each in self._background)
        if limit is not None and held + sequences > limit:
            room = f"the limit of {limit} has no room for {sequences} more"
            raise RateLimited(f"you have {held} sequences in flight, and {room}", 1.0, self.headers())
        self._sequences[request] += sequences

    def check_tokens(self, *, own: int = 0, request: TokenCounter | None = None) -> None:
        """Raise `RateLimited` if all tokens are used, apart from ``own`` tokens of the request itself."""
        if self._bucket is None:
            return
        self._charge_generated()
        needed = self._bucket.size / 2 if request in self._background else 1
        if self._bucket.level + own < needed:
            raise RateLimited(
                f"you have used your {self._bucket.size} tokens a minute",
                self._bucket.seconds_until(needed),
                self.headers(),
            )

    @property
    def max_sequences(self) -> int:
        """Maximum number of sequences in flight that the client may ever have."""
        return self._limits.concurrency or sys.maxsize

    def charge_prompt(self, prompt_tokens: int) -> None:
        """Charge the tokens of a prompt. Generated tokens are charged automatically."""
        if self._bucket is not None:
            self._bucket.take(prompt_tokens)

    def end_request(self, request: TokenCounter) -> None:
        """Charge the last generated tokens of a request and stop counting it as in flight."""
        self._charge(request)
        del self._charged[request]
        self._forget(request)

    def _forget(self, request: TokenCounter) -> None:
        del self._sequences[request]
        self._background.discard(request)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and all tokens are available, so that this object can be evicted."""
        return not self._charged and (self._bucket is None or self._bucket.level >= self._bucket.size)

    def headers(self) -> dict[str, str]:
        """Return OpenAI's ``x-ratelimit-*`` headers; none if there is no token limit."""
        if self._bucket is None:
            return {}
        self._charge_generated()
        return {
            "x-ratelimit-limit-tokens": str(self._bucket.size),
            "x-ratelimit-remaining-tokens": str(max(int(self._bucket.level), 0)),
            "x-ratelimit-reset-tokens": f"{self._bucket.seconds_until(self._bucket.size):.3f}s",
        }

    def _charge_generated(self) -> None:
        for request in self._charged:
            self._charge(request)

    def _charge(self, request: TokenCounter) -> None:
        if self._bucket is not None:
            self._bucket.take(request.generated_tokens - self._charged[request])
            self._charged[request] = request.generated_tokens


class ClientLimits:
    """The usage of every client. A client that is idle is evicted."""

    def __init__(
        self, limits: RateLimits, owner_limits: Mapping[str, RateLimits], clock: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._owner_limits = {f"{OWNER}{owner}": each for owner, each in owner_limits.items()}
        self._clock = clock
        self._usage: OrderedDict[str, ClientUsage] = OrderedDict()

    def __len__(self) -> int:
        return len(self._usage)

    def usage_of(self, client: str) -> ClientUsage:
        """Return the usage of a client."""
        self._evict_idle()
        if client not in self._usage:
            limits = self._owner_limits.get(client, self._limits)
            self._usage[client] = ClientUsage(limits, self._clock)
        return self._usage[client]

    def _evict_idle(self) -> None:
        for _ in range(min(EVICTION_CHECKS, len(self._usage))):
            client, usage = next(iter(self._usage.items()))
            if usage.is_idle:
                del self._usage[client]
            else:
                self._usage.move_to_end(client)


class RateLimited(HTTPException):
    """A client has reached one of its limits: 429."""

    def __init__(self, message: str, seconds: float, headers: dict[str, str]) -> None:
        super().__init__(
            status_code=429,
            detail=f"{message}; try again in {seconds:.1f} s",
            headers={"Retry-After": str(max(math.ceil(seconds), 1)), **headers},
            extra={"code": "rate_limit_exceeded"},
        )
