"""The watchdog of the event loop, and debuggers that stop it."""

from __future__ import annotations

import asyncio
import bdb
import sys
import time
from collections.abc import Callable

import pytest

from fllm_api.lifecycle.event_loop_watchdog import (
    HEARTBEAT_INTERVAL,
    EventLoopStalled,
    is_debugged,
    watch_event_loop,
)

STALL = 3 * HEARTBEAT_INTERVAL


class Prompt(bdb.Bdb):
    """A debugger whose prompt waits."""

    def user_line(self, frame: object) -> None:
        time.sleep(2 * STALL)
        self.set_continue()


def block(work: Callable[[], object]) -> None:
    """Run work on an event loop that is watched."""

    async def run() -> None:
        with watch_event_loop(asyncio.get_running_loop(), stall_timeout=STALL):
            await asyncio.sleep(0)
            work()

    asyncio.run(run())


def test_code_that_blocks_the_loop_is_interrupted() -> None:
    with pytest.raises(EventLoopStalled):
        block(lambda: time.sleep(10 * STALL))


def test_a_breakpoint_is_not_interrupted_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    passed: list[int] = []

    def stops() -> None:
        Prompt().set_trace()
        passed.append(1)

    before = sys.gettrace()
    try:
        block(stops)
    finally:
        sys.settrace(before)
    assert passed == [1]
    assert caplog.messages == ["a debugger has stopped the event loop: all requests wait for it"]


def test_a_tool_that_measures_coverage_is_not_a_debugger() -> None:
    def trace(*_: object) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert not is_debugged(sys._getframe())
        trace.__module__ = "pydevd"
        assert is_debugged(sys._getframe())
    finally:
        sys.settrace(before)
