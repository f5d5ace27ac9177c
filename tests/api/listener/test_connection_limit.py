"""Which connections are closed when there are too many."""

from __future__ import annotations

from fllm_api.listener.connection_limit import ConnectionLimit


class FakeConnection:
    """Records how it was closed."""

    def __init__(self) -> None:
        self.closed = ""

    def close(self) -> None:
        self.closed = "closed"

    def abort(self) -> None:
        self.closed = "aborted"


def test_the_connection_that_has_been_idle_longest_is_closed_for_a_new_one() -> None:
    limit = ConnectionLimit(2)
    first, second, third = FakeConnection(), FakeConnection(), FakeConnection()
    assert limit.add(first)
    assert limit.add(second)
    limit.mark_busy(first)
    limit.mark_idle(first)
    assert limit.add(third)
    assert (first.closed, second.closed, third.closed) == ("", "closed", "")


def test_there_is_no_room_if_all_connections_are_busy() -> None:
    limit = ConnectionLimit(1)
    busy = FakeConnection()
    limit.add(busy)
    limit.mark_busy(busy)
    assert not limit.add(FakeConnection())
    limit.remove(busy)
    assert limit.add(FakeConnection())


def test_a_rejected_connection_makes_room_for_another() -> None:
    limit = ConnectionLimit(1)
    rejected = FakeConnection()
    limit.add(rejected)
    limit.mark_rejected(rejected)
    assert limit.add(FakeConnection())
    assert not rejected.closed


def test_only_so_many_rejected_connections_stay_open() -> None:
    limit = ConnectionLimit(1, max_rejected=2)
    rejected = [FakeConnection() for _ in range(5)]
    for connection in rejected:
        limit.mark_rejected(connection)
    assert [connection.closed for connection in rejected] == ["aborted"] * 3 + [""] * 2
    limit.remove(rejected[3])
    last = FakeConnection()
    limit.mark_rejected(last)
    assert (rejected[4].closed, last.closed) == ("", "")
