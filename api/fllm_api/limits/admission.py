"""Whether there is room for a request: in the server, and in what its client may have."""

from __future__ import annotations

import time
from collections.abc import Callable

from litestar.exceptions import HTTPException

from fllm.errors import RequestError
from fllm.pipeline.pipeline import PipelineRequest
from fllm.values import ModelCard
from fllm_api.config import ClientLimits, ServerConfig
from fllm_api.limits.client_limits import Account, Accounts, Consumer

SEQUENCES_OF_OTHERS = 256
"""That a backend is taken to run at once which does not say how many: vLLM's default."""


class Busy(HTTPException):
    """As much waits as may: 503."""

    def __init__(self, capacity: int) -> None:
        super().__init__(
            status_code=503,
            detail=f"the server is busy: {capacity} sequences run or wait, and that is all it holds",
            headers={"Retry-After": "1"},
            extra={"code": "server_busy"},
        )


class Admission:
    """Counts the sequences in flight, those of all clients and the requests of each."""

    def __init__(
        self, capacity: int, limits: ClientLimits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.capacity = capacity
        self.in_flight = 0
        limited = limits != ClientLimits()
        self._accounts = Accounts(limits, clock) if limited else None

    def admit(self, client: str, request: Consumer) -> Ticket:
        """Let a request in of which nothing is known yet, as one sequence; raises what is a 429 or a 503."""
        account = None if self._accounts is None else self._accounts.of(client)
        if account is not None:
            account.enter(request)
        ticket = Ticket(self, account, request)
        try:
            ticket.take(1)
        except Busy:
            ticket.release()
            raise
        return ticket


class Ticket:
    """What a request holds, from its admission to `release`."""

    def __init__(self, admission: Admission, account: Account | None, request: Consumer) -> None:
        self._admission = admission
        self._account = account
        self._request = request
        self._held = 0

    def claim(self, asked: PipelineRequest) -> None:
        """Hold all that the request turns out to need; raises a 400 if that is more than there can be."""
        capacity = self._admission.capacity
        if asked.num_sequences > capacity:
            field = _many(asked)
            raise RequestError(
                f"`{field}`: these are {asked.num_sequences} sequences, "
                f"and this server holds {capacity} at most",
                param=field,
            )
        if self._account is not None:
            self._account.check()
        self.take(asked.num_sequences - self._held)
        if self._account is not None:
            self._account.use(sum(map(len, asked.prompts)))

    def take(self, sequences: int) -> None:
        """Hold so many more, if so many are free."""
        if self._admission.in_flight + sequences > self._admission.capacity:
            raise Busy(self._admission.capacity)
        self._admission.in_flight += sequences
        self._held += sequences

    def release(self) -> None:
        """The request is over."""
        self._admission.in_flight -= self._held
        self._held = 0
        if self._account is not None:
            self._account.leave(self._request)

    def headers(self) -> dict[str, str]:
        """What the client is told of its limits."""
        return {} if self._account is None else self._account.headers()


def capacity(card: ModelCard, config: ServerConfig) -> int:
    """Sequences that run and wait at most."""
    running = card.runtime.get("max_num_seqs")
    return config.max_queue + (running if isinstance(running, int) else SEQUENCES_OF_OTHERS)


def _many(asked: PipelineRequest) -> str:
    """The field that asks for so many sequences."""
    if len(asked.prompts) > 1:
        return "prompt"
    return "best_of" if asked.beam or asked.best_of > asked.n else "n"
