"""What a matcher costs decides where it runs, and when its sequence fails."""

from __future__ import annotations

import pytest
from support.manual_masks import ManualWorker, grammar_of

from fllm.concurrency.hung_threads import MAX_HUNG_OF_CLIENT, HungThreads
from fllm.errors import BackendError, BackendUnavailable, RequestError
from fllm.structured_output import grammar_state
from fllm.structured_output.grammar_state import (
    CPU_SECONDS,
    HANG_SECONDS,
    SLOW_SECONDS,
    TOKEN_CPU_SECONDS,
    GrammarState,
)


class Costs:
    """Tokens whose processor time a test decides."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, text: str = "1" * 100) -> None:
        self.worker = ManualWorker()
        self.grammar: GrammarState = grammar_of(text, self.worker)
        self._now = self._cost = 0.0
        monkeypatch.setattr(grammar_state.time, "thread_time", self._thread_time)

    def token(self, cpu_seconds: float) -> None:
        """Accept a token and compute the mask after it."""
        self._cost = cpu_seconds / 2  # it is measured in two parts
        self.grammar.accept_token(1, min_left=9, max_left=9)
        while self.worker.tasks:
            self.worker.compute()

    def _thread_time(self) -> float:
        self._now += self._cost
        return self._now


def test_a_matcher_is_slow_for_some_tokens_after_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = Costs(monkeypatch)
    costs.token(0.9 * SLOW_SECONDS)
    assert not costs.grammar.slow
    costs.token(4 * SLOW_SECONDS)
    assert costs.grammar.slow
    costs.token(SLOW_SECONDS / 100)
    assert costs.grammar.slow
    for _ in range(20):
        costs.token(SLOW_SECONDS / 100)
    assert not costs.grammar.slow


def test_the_budget_of_a_sequence_grows_with_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = Costs(monkeypatch)
    for _ in range(50):
        costs.token(TOKEN_CPU_SECONDS)
    assert costs.grammar.error is None
    costs.token(5 * CPU_SECONDS)
    assert isinstance(costs.grammar.error, RequestError)


def test_a_call_that_does_not_return_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu_seconds, seconds, error in (
        (2 * CPU_SECONDS, 1.0, RequestError),
        (0.0, 2 * HANG_SECONDS, BackendError),
        (2 * SLOW_SECONDS, 2 * HANG_SECONDS, RequestError),
    ):
        grammar = Costs(monkeypatch).grammar
        assert not grammar.is_overdue(CPU_SECONDS / 2, HANG_SECONDS / 2)
        assert grammar.is_overdue(cpu_seconds, seconds)
        assert isinstance(grammar.error, error)
        assert grammar.is_mask_near()  # nothing waits for it any more
        assert grammar.is_accepted()


def test_a_late_mask_is_replaced_by_one_of_all_tokens_for_the_whole_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costs = Costs(monkeypatch)
    costs.grammar.start((), min_left=9, max_left=9)
    costs.worker.compute()
    assert costs.grammar.wait_for_mask()[0] == -1
    costs.worker.compute()
    assert costs.grammar.wait_for_mask()[0] == -1
    assert costs.grammar.missed_mask
    costs.grammar.begin_row()
    assert costs.grammar.wait_for_mask()[0] == 1 << 1
    assert not costs.grammar.missed_mask


@pytest.mark.parametrize(
    ("raised", "expected"), [(ValueError("x"), BackendError), (RequestError("x"), RequestError)]
)
def test_a_matcher_may_blame_the_request(raised: Exception, expected: type[Exception]) -> None:
    grammar = broken(raised)
    assert isinstance(grammar.error, expected)
    assert grammar.is_mask_near()


def test_a_panic_of_a_matcher_fails_its_sequence_and_not_the_thread() -> None:
    class PanicException(BaseException):
        """What a panic of a Rust extension raises."""

    assert isinstance(broken(PanicException("x")).error, BackendError)


def test_no_matcher_is_called_for_a_client_that_makes_too_many_threads_hang() -> None:
    worker = ManualWorker()
    worker.hung = HungThreads(["a"] * MAX_HUNG_OF_CLIENT)
    refused, other = (grammar_of("1", worker, client) for client in "ab")
    for grammar in (refused, other):
        grammar.start((), min_left=9, max_left=9)
    assert isinstance(refused.error, BackendUnavailable)
    assert refused.is_mask_near()
    assert [task for task, _ in worker.tasks] == [other]


def broken(error: BaseException) -> GrammarState:
    """Return the state of a grammar whose first mask raises."""
    worker = ManualWorker()
    grammar = grammar_of("1", worker)

    def fill_bitmask(mask: memoryview) -> None:
        raise error

    grammar._matcher.fill_bitmask = fill_bitmask  # type: ignore[method-assign]
    grammar.start((), min_left=9, max_left=9)
    while worker.tasks:
        worker.compute()
    return grammar
