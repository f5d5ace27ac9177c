"""What every test needs."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings


def pytest_configure() -> None:
    """Make Ctrl-C work in the programs that tests start, even in a background job, where SIGINT is ignored.

    A process inherits that a signal is ignored, but not that it has a handler.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# A busy machine fails no test. In CI, the examples are the same in each run; `scripts/fuzz` finds new ones.
settings.register_profile(
    "fllm",
    settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="FLLM_CI" in os.environ,
)
settings.load_profile("fllm")
