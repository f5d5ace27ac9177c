"""The queue of waiting sequences, which serves clients round-robin.

No client waits for all requests of another client."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Container

from fllm.batching.sequence import Sequence


class WaitingQueue:
    """Sequences that wait to run: those in the background after all others. Both kinds wait in turns."""

    def __init__(self) -> None:
        self._foreground, self._background = TurnQueue(), TurnQueue()

    def __len__(self) -> int:
        return len(self._foreground) + len(self._background)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; see `TurnQueue.add`."""
        self._of(sequence).add(sequence)

    def add_first(self, sequence: Sequence) -> None:
        """Queue a sequence before those of its client and kind."""
        self._of(sequence).add_first(sequence)

    def add_preempted(self, sequence: Sequence) -> None:
        """Queue a sequence before all others of its kind."""
        self._of(sequence).add_preempted(sequence)

    def first(self) -> Sequence | None:
        """Return the sequence at the front."""
        return self._foreground.first() or self._background.first()

    def first_of_others(self, clients: Container[str]) -> Sequence | None:
        """Return the first sequence of the first client that is none of ``clients``, not in the background.

        The time grows with the number of clients.
        """
        return self._foreground.first_of_others(clients)

    def pop(self) -> Sequence:
        """Remove and return the sequence at the front; all other clients are served before its client."""
        sequence = self.first()
        assert sequence is not None, "the queue is empty"
        return self.take(sequence)

    def take(self, sequence: Sequence) -> Sequence:
        """Remove and return a queued sequence; all other clients are served before its client."""
        return self._of(sequence).take(sequence)

    def remove(self, request_id: str) -> Sequence | None:
        """Remove and return a sequence; return ``None`` if it is not queued."""
        return self._foreground.remove(request_id) or self._background.remove(request_id)

    def _of(self, sequence: Sequence) -> TurnQueue:
        return self._background if sequence.is_background else self._foreground


class TurnQueue:
    """A queue in turns. The time of an operation hardly depends on its length.

    Preempted sequences come first. Then follows one sequence of each client in turn, and the sequences of
    one client by priority, then in order of arrival. The sequence at the front stays there until it is popped
    or removed, even if others arrive, except those of its client with a lower priority.
    """

    def __init__(self) -> None:
        self._sequences: dict[str, Sequence] = {}
        self._preempted: OrderedDict[str, Sequence] = OrderedDict()
        self._clients: OrderedDict[str, _ClientQueue] = OrderedDict()
        """Queue of each client that has one; the client to serve next is first."""

    def __len__(self) -> int:
        return len(self._sequences)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence after those of its client and priority. A new client is served last."""
        self._sequences[sequence.id] = sequence
        self._client_queue(sequence).add(sequence)

    def add_first(self, sequence: Sequence) -> None:
        """Queue a sequence before those of its client."""
        self._sequences[sequence.id] = sequence
        self._client_queue(sequence).add_first(sequence)

    def add_preempted(self, sequence: Sequence) -> None:
        """Queue a sequence before all others."""
        self._sequences[sequence.id] = sequence
        self._preempted[sequence.id] = sequence
        self._preempted.move_to_end(sequence.id, last=False)

    def first(self) -> Sequence | None:
        """Return the sequence at the front."""
        for sequence in self._preempted.values():
            return sequence
        return next((queue.first() for queue in self._clients.values()), None)

    def first_of_others(self, clients: Container[str]) -> Sequence | None:
        """Return the first sequence of the first client that is none of ``clients``.

        The time grows with the number of clients.
        """
        other = next((client for client in self._clients if client not in clients), None)
        return None if other is None else self._clients[other].first()

    def take(self, sequence: Sequence) -> Sequence:
        """Remove and return a queued sequence; all other clients are served before its client."""
        preempted = sequence.id in self._preempted
        self.remove(sequence.id)
        if not preempted and sequence.client in self._clients:
            self._clients.move_to_end(sequence.client)
        return sequence

    def remove(self, request_id: str) -> Sequence | None:
        """Remove and return a sequence; return ``None`` if it is not queued."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is None or self._preempted.pop(request_id, None) is not None:
            return sequence
        queue = self._clients[sequence.client]
        queue.remove(sequence)
        if not queue:
            del self._clients[sequence.client]
        return sequence

    def _client_queue(self, sequence: Sequence) -> _ClientQueue:
        return self._clients.setdefault(sequence.client, _ClientQueue())


class _ClientQueue:
    """The sequences of one client: those that were running, then the others by priority and arrival."""

    def __init__(self) -> None:
        self._first: OrderedDict[str, Sequence] = OrderedDict()
        self._by_priority: dict[int, OrderedDict[str, Sequence]] = {}
        self._priorities: list[int] = []
        """A heap of the priorities that have sequences."""

    def __len__(self) -> int:
        return len(self._first) + len(self._by_priority)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence after those of its priority."""
        if sequence.priority not in self._by_priority:
            self._by_priority[sequence.priority] = OrderedDict()
            heapq.heappush(self._priorities, sequence.priority)
        self._by_priority[sequence.priority][sequence.id] = sequence

    def add_first(self, sequence: Sequence) -> None:
        """Queue a sequence before all others."""
        self._first[sequence.id] = sequence
        self._first.move_to_end(sequence.id, last=False)

    def first(self) -> Sequence:
        """Return the sequence at the front of a queue that is not empty."""
        queue = self._first or self._by_priority[self._priorities[0]]
        return next(iter(queue.values()))

    def remove(self, sequence: Sequence) -> None:
        """Remove a queued sequence."""
        if self._first.pop(sequence.id, None) is not None:
            return
        queue = self._by_priority[sequence.priority]
        del queue[sequence.id]
        if queue:
            return
        del self._by_priority[sequence.priority]
        if self._priorities[0] == sequence.priority:  # nearly always
            heapq.heappop(self._priorities)
        else:
            self._priorities.remove(sequence.priority)
            heapq.heapify(self._priorities)
