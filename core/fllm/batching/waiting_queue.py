"""The queue of waiting sequences, which serves clients round-robin.

No client waits for all requests of another client."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container
from itertools import islice

from fllm.batching.sequence import Sequence


class WaitingQueue:
    """Sequences that wait to run. The time of an operation does not depend on the length of the queue.

    Preempted sequences come first. Then follows one sequence of each client in turn, and the sequences of
    one client in order of arrival. The sequence at the front stays there until it is popped or removed, even
    if others arrive.
    """

    def __init__(self) -> None:
        self._sequences: dict[str, Sequence] = {}
        self._preempted: OrderedDict[str, Sequence] = OrderedDict()
        self._clients: OrderedDict[str, OrderedDict[str, Sequence]] = OrderedDict()
        """Queue of each client that has one; the client to serve next is first."""

    def __len__(self) -> int:
        return len(self._sequences)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence after those of its client. A new client is served after all others."""
        self._sequences[sequence.id] = sequence
        self._clients.setdefault(sequence.client, OrderedDict())[sequence.id] = sequence

    def add_first(self, sequence: Sequence) -> None:
        """Queue a sequence before those of its client."""
        self.add(sequence)
        self._clients[sequence.client].move_to_end(sequence.id, last=False)

    def add_preempted(self, sequence: Sequence) -> None:
        """Queue a sequence before all others."""
        self._sequences[sequence.id] = sequence
        self._preempted[sequence.id] = sequence
        self._preempted.move_to_end(sequence.id, last=False)

    def first(self) -> Sequence | None:
        """Return the sequence at the front."""
        for queue in (self._preempted, *islice(self._clients.values(), 1)):
            for sequence in queue.values():
                return sequence
        return None

    def first_of_others(self, clients: Container[str]) -> Sequence | None:
        """Return the first sequence of the first client that is none of ``clients``.

        The time grows with the number of clients.
        """
        other = next((client for client in self._clients if client not in clients), None)
        return None if other is None else next(iter(self._clients[other].values()))

    def pop(self) -> Sequence:
        """Remove and return the sequence at the front; all other clients are served before its client."""
        sequence = self.first()
        assert sequence is not None, "the queue is empty"
        return self.take(sequence)

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
        del queue[request_id]
        if not queue:
            del self._clients[sequence.client]
        return sequence
