"""The sequences in the background: who gives way, and whose turn it is while others run."""

from __future__ import annotations

from fllm.batching.sequence import Sequence


class Background:
    """Sequences with `BACKGROUND_PRIORITY`, whether they run or wait, in the order of their turns."""

    def __init__(self) -> None:
        self._sequences: dict[str, Sequence] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def add(self, sequence: Sequence) -> None:
        """Add a sequence if it runs in the background."""
        if sequence.is_background:
            self._sequences[sequence.id] = sequence

    def discard(self, request_id: str) -> None:
        """Remove a sequence if it is here."""
        self._sequences.pop(request_id, None)

    def last(self, running: dict[str, Sequence]) -> Sequence | None:
        """Return the one of the running sequences that was admitted last: it gives way to others."""
        if not self._sequences:
            return None
        return next((each for each in reversed(running.values()) if each.is_background), None)

    def pause(self, sequences: list[Sequence]) -> list[Sequence]:
        """Return those that get no row in this step: all but one, in turn, if others run.

        A larger batch takes longer, so each token of the others would.
        """
        background = [each for each in sequences if each.is_background]
        if not background or len(background) == len(sequences):
            return []
        chosen = next(each for each in self._sequences.values() if each in background)
        self._sequences[chosen.id] = self._sequences.pop(chosen.id)  # the last one next time
        return [each for each in background if each is not chosen]
