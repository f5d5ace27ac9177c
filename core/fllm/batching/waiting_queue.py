"""The queue of those who wait: clients take turns, so that nobody waits for all that another has asked."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from fllm.batching.sequence import Sequence


class Waiting:
    """Sequences that wait to run. No operation takes longer when many wait.

    First come those that ran before and were sent back, then one of each client in turn, of each client in
    order of arrival. Whose turn it is keeps it until it is taken or dropped, whoever comes.
    """

    def __init__(self) -> None:
        self._sequences: dict[str, Sequence] = {}
        self._returned: OrderedDict[str, Sequence] = OrderedDict()
        self._turns: OrderedDict[str, OrderedDict[str, Sequence]] = OrderedDict()
        """The queue of each client that has one; the next to have its turn is first."""

    def __len__(self) -> int:
        return len(self._sequences)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those of its client; a client that is new has the last turn."""
        self._sequences[sequence.id] = sequence
        self._turns.setdefault(sequence.client, OrderedDict())[sequence.id] = sequence

    def put_back(self, sequence: Sequence) -> None:
        """Queue a sequence before all others."""
        self._sequences[sequence.id] = sequence
        self._returned[sequence.id] = sequence
        self._returned.move_to_end(sequence.id, last=False)

    def first(self) -> Sequence | None:
        """Whose turn it is."""
        for queue in (self._returned, *islice(self._turns.values(), 1)):
            for sequence in queue.values():
                return sequence
        return None

    def take(self) -> Sequence:
        """Remove whose turn it is; its client has the next one when all others have had theirs."""
        sequence = self.first()
        assert sequence is not None, "somebody waits"
        returned = sequence.id in self._returned
        self.drop(sequence.id)
        if not returned and sequence.client in self._turns:
            self._turns.move_to_end(sequence.client)
        return sequence

    def drop(self, request_id: str) -> Sequence | None:
        """Remove a sequence, if it is here."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is None or self._returned.pop(request_id, None) is not None:
            return sequence
        queue = self._turns[sequence.client]
        del queue[request_id]
        if not queue:
            del self._turns[sequence.client]
        return sequence
