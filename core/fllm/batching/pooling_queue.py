"""The queue of inputs to pool. Clients take turns, and inputs of similar length are computed together."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence

from fllm.batching.pooling_runner import PoolingRow
from fllm.values import BACKGROUND_PRIORITY, PoolingRequest

MIN_DENSITY = 0.75
"""Lowest ratio of the length of an input to that of the longest of its batch, if the batch is not small."""
SMALL_BATCH = 256
"""Tokens up to which another batch costs more than padding."""


class PendingRequest:
    """A request of which inputs wait, and the vectors that it has so far."""

    def __init__(self, request: PoolingRequest, arrival_time: float) -> None:
        self.request = request
        self.arrival_time = arrival_time
        self.queue_time: float | None = None
        """Seconds between its arrival and its first batch."""
        self.cancelled = False
        self._vectors: list[bytes] = [b""] * len(request.inputs)
        self._missing = len(request.inputs)
        self._waiting = sorted(range(len(request.inputs)), key=self.length)

    def __len__(self) -> int:
        return len(self._waiting)

    def length(self, index: int) -> int:
        """Return the number of tokens of an input."""
        return len(self.request.inputs[index].token_ids)

    def next_length(self) -> int:
        """Return the number of tokens of the input that `pop` returns, the longest that waits."""
        return self.length(self._waiting[-1])

    def pop(self) -> int:
        """Remove and return the index of the longest input that waits."""
        return self._waiting.pop()

    def add(self, index: int, vector: bytes) -> None:
        """Store the vector of an input."""
        self._vectors[index] = vector
        self._missing -= 1

    @property
    def complete(self) -> bool:
        """Whether all vectors are stored."""
        return not self._missing

    def values(self) -> bytes:
        """Return all vectors, in the order of the inputs."""
        return b"".join(self._vectors)


class Item:
    """One input of a request."""

    __slots__ = ("index", "length", "pending")

    def __init__(self, pending: PendingRequest) -> None:
        self.pending = pending
        self.length = pending.next_length()
        self.index = pending.pop()

    @property
    def row(self) -> PoolingRow:
        """What the runner needs of it."""
        request = self.pending.request
        return PoolingRow(request.inputs[self.index], request.dimensions, request.activation)


_Client = tuple[bool, str]
"""Whether requests are in the background, and the name of their client."""


class PoolingQueue:
    """Requests that wait. The requests of one client leave by priority, then in order of arrival.

    Those in the background (`BACKGROUND_PRIORITY`) leave when no others wait.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        """Maximum number of tokens of a round, and of a batch with its padding. A longer input is alone."""
        self._clients: OrderedDict[_Client, list[tuple[int, int, PendingRequest]]] = OrderedDict()
        """A heap of each client; the client to serve next is first."""
        self._numbers = itertools.count()
        self.inputs = 0
        """Number of inputs that wait."""

    def add(self, pending: PendingRequest) -> None:
        """Queue all inputs of a request."""
        heap = self._clients.setdefault(_client_of(pending), [])
        heapq.heappush(heap, (pending.request.priority, next(self._numbers), pending))
        self.inputs += len(pending)

    def cancel(self, pending: PendingRequest) -> None:
        """Remove the inputs of a request that wait; those of the current round are skipped. Call it once."""
        pending.cancelled = True
        if pending:
            self.inputs -= len(pending)
            client = _client_of(pending)
            self._set_heap(client, [entry for entry in self._clients[client] if entry[2] is not pending])

    def next_round(self) -> list[list[Item]]:
        """Remove inputs of the clients in turn, up to the maximum of tokens; return them in batches."""
        items: list[Item] = []
        tokens = 0
        clients = deque(client for client in self._clients if not client[0]) or deque(self._clients)
        while clients:
            client = clients.popleft()
            pending = self._clients[client][0][2]
            if items and tokens + pending.next_length() > self._max_tokens:
                continue
            items.append(Item(pending))
            tokens += items[-1].length
            self.inputs -= 1
            if pending:
                self._clients.move_to_end(client)
            else:
                heapq.heappop(self._clients[client])
                self._set_heap(client, self._clients[client])
            if client in self._clients:
                clients.append(client)
        return list(divide(items, self._max_tokens))

    def _set_heap(self, client: _Client, heap: list[tuple[int, int, PendingRequest]]) -> None:
        """Store the requests of a client, behind the other clients, or none."""
        self._clients.pop(client, None)
        if heap:
            heapq.heapify(heap)
            self._clients[client] = heap


def _client_of(pending: PendingRequest) -> _Client:
    return pending.request.priority >= BACKGROUND_PRIORITY, pending.request.client


def divide(items: Sequence[Item], max_tokens: int) -> Iterator[list[Item]]:
    """Yield the items in batches of similar length, which are padded to their longest."""
    batch: list[Item] = []
    longest = 0
    for item in sorted(items, key=lambda item: item.length, reverse=True):
        padded = longest * len(batch)
        sparse = item.length < longest * MIN_DENSITY and padded >= SMALL_BATCH
        if batch and (sparse or padded + longest > max_tokens):
            yield batch
            batch = []
        if not batch:
            longest = item.length
        batch.append(item)
    if batch:
        yield batch
