"""Constrained sequences whose masks are computed when a test says so, and a runner that applies masks."""

from __future__ import annotations

from collections import deque
from threading import Event

from support.fake_grammar import matcher_of
from support.fake_runner import VOCABULARY, FakeRunner

from fllm.batching import Row, RunnerCapabilities
from fllm.structured_output.grammar_state import GrammarState
from fllm.structured_output.interfaces import Vocabulary
from fllm.structured_output.mask_worker import MaskTask, MaskWorker


class MaskedRunner(FakeRunner):
    """Samples the first allowed token from the unconstrained one on."""

    capabilities = RunnerCapabilities(verifies_drafts=True, applies_masks=True)

    def _next(self, row: Row, context: list[int]) -> int:
        token = super()._next(row, context)
        if row.mask is None:
            return token
        [mask] = row.mask()
        return next(
            each % VOCABULARY for each in range(token, token + VOCABULARY) if mask >> each % VOCABULARY & 1
        )


class ManualWorker(MaskWorker):
    """Runs nothing before `compute`; nobody waits for it."""

    def __init__(self) -> None:
        super().__init__(self._count_wake)
        self.wakes = 0
        self.tasks: deque[tuple[MaskTask, bool]] = deque()

    def submit(self, task: MaskTask, *, accept: bool) -> None:
        self.tasks.append((task, accept))

    def wait(self, event: Event) -> bool:
        return event.is_set()

    def compute(self) -> None:
        """Accept one token or compute one mask."""
        task, accept = self.tasks.popleft()
        if not accept:
            task.fill()
        elif task.accept():
            self.tasks.append((task, False))

    def _count_wake(self) -> None:
        self.wakes += 1


def grammar_of(text: str, worker: MaskWorker, client: str = "") -> GrammarState:
    """Return the state of a grammar that allows only these tokens, one for each digit.

    After an ``f``, it forces the tokens 3 and 4.
    """
    return GrammarState(matcher_of(text), Vocabulary([b"t"] * VOCABULARY, (10,)), worker, client=client)
