from fllm.concurrency.round_robin_queue import RoundRobinQueue


def test_clients_take_turns_and_each_keeps_its_order() -> None:
    queue: RoundRobinQueue[str] = RoundRobinQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.put(item[0], item)
    assert [queue.pop() for _ in range(7)] == ["a1", "b1", "c1", "a2", "b2", "a3", None]


def test_a_client_that_returns_is_served_after_the_others() -> None:
    queue: RoundRobinQueue[str] = RoundRobinQueue()
    queue.put("a", "a1")
    queue.put("b", "b1")
    assert queue.pop() == "a1"
    queue.put("a", "a2")
    assert [queue.pop(), queue.pop(), queue.pop()] == ["b1", "a2", None]
