"""The number of threads that hang, in total and for each client."""

from __future__ import annotations

from fllm.concurrency.hung_threads import MAX_HUNG, MAX_HUNG_OF_CLIENT, HungThreads


def test_a_client_may_cause_some_threads_to_hang_and_all_clients_more() -> None:
    hung = HungThreads(["a"] * MAX_HUNG_OF_CLIENT)
    assert hung.too_many("a")
    assert not hung.too_many("b")
    hung.remove("a")
    assert not hung.too_many("a")
    for number in range(MAX_HUNG - MAX_HUNG_OF_CLIENT + 1):
        hung.add(f"other {number}")
    assert hung.too_many("b")
