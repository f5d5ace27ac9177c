"""CPU time of functions and their child processes."""

from __future__ import annotations

import threading
import time

from fllm.concurrency.cpu_time import add_child_seconds, thread_seconds


def test_only_what_this_thread_and_its_children_compute_counts() -> None:
    start = thread_seconds()
    threading.Thread(target=add_child_seconds, args=(7.0,)).run()  # in this thread
    other = threading.Thread(target=add_child_seconds, args=(900.0,))
    other.start()
    other.join()
    time.sleep(0.05)
    assert 7.0 <= thread_seconds() - start < 7.05
