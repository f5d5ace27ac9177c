"""What each client has of the server, and what it may still have."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from litestar.exceptions import HTTPException

from fllm_api.config import ClientLimits
from fllm_api.limits.token_bucket import Bucket

LOOKED_AT = 2
"""Accounts that are looked at whenever a client comes: so they are forgotten faster than they are opened."""


class Consumer(Protocol):
    """A request, for what it has cost so far."""

    @property
    def generated_tokens(self) -> int: ...


class Account:
    """One client: its requests in flight, and its tokens."""

    def __init__(self, limits: ClientLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._charged: dict[Consumer, int] = {}
        """Each request in flight, and how many of its generated tokens have been charged."""
        self._bucket = Bucket(limits.tokens_per_minute, clock) if limits.tokens_per_minute else None

    def enter(self, request: Consumer) -> None:
        """A request comes; raises `RateLimited`."""
        most = self._limits.concurrency
        if most is not None and len(self._charged) >= most:
            raise RateLimited(f"you have {most} requests in flight, which is the limit", 1.0, self.headers())
        self.check()
        self._charged[request] = 0

    def check(self) -> None:
        """Raise `RateLimited` if all tokens are used."""
        if self._bucket is None:
            return
        self._settle()
        if self._bucket.level < 1:
            raise RateLimited(
                f"you have used your {self._bucket.size} tokens a minute",
                self._bucket.seconds_until(1),
                self.headers(),
            )

    def use(self, prompt_tokens: int) -> None:
        """Charge a prompt; generated tokens are charged by themselves."""
        if self._bucket is not None:
            self._bucket.take(prompt_tokens)

    def leave(self, request: Consumer) -> None:
        """A request is over."""
        self._charge(request)
        del self._charged[request]

    @property
    def blank(self) -> bool:
        """There is nothing to remember."""
        return not self._charged and (self._bucket is None or self._bucket.level >= self._bucket.size)

    def headers(self) -> dict[str, str]:
        """OpenAI's ``x-ratelimit-*``, as far as there are limits."""
        if self._bucket is None:
            return {}
        self._settle()
        return {
            "x-ratelimit-limit-tokens": str(self._bucket.size),
            "x-ratelimit-remaining-tokens": str(max(int(self._bucket.level), 0)),
            "x-ratelimit-reset-tokens": f"{self._bucket.seconds_until(self._bucket.size):.3f}s",
        }

    def _settle(self) -> None:
        for request in self._charged:
            self._charge(request)

    def _charge(self, request: Consumer) -> None:
        if self._bucket is not None:
            self._bucket.take(request.generated_tokens - self._charged[request])
            self._charged[request] = request.generated_tokens


class Accounts:
    """Those of all clients who have one; who has nothing in flight and all its tokens is forgotten."""

    def __init__(self, limits: ClientLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._open: OrderedDict[str, Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def of(self, client: str) -> Account:
        """A client's own."""
        self._forget()
        if client not in self._open:
            self._open[client] = Account(self._limits, self._clock)
        return self._open[client]

    def _forget(self) -> None:
        for _ in range(min(LOOKED_AT, len(self._open))):
            client, account = next(iter(self._open.items()))
            if account.blank:
                del self._open[client]
            else:
                self._open.move_to_end(client)


class RateLimited(HTTPException):
    """A client has all that it may have for now: 429."""

    def __init__(self, message: str, seconds: float, headers: dict[str, str]) -> None:
        super().__init__(
            status_code=429,
            detail=f"{message}; try again in {seconds:.1f} s",
            headers={"Retry-After": str(max(math.ceil(seconds), 1)), **headers},
            extra={"code": "rate_limit_exceeded"},
        )
