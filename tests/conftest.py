"""What every test needs."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Make Ctrl-C work in the programs that tests start, even in a background job, where SIGINT is ignored.

    A process inherits that a signal is ignored, but not that it has a handler.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
