"""What every test needs."""

from __future__ import annotations

import os
import signal
import tempfile

_data = tempfile.TemporaryDirectory(prefix="fllm-data-")
"""Where the servers of tests store responses, instead of the user's own directory."""


def pytest_configure() -> None:
    """Make Ctrl-C work in the programs that tests start, even in a background job, where SIGINT is ignored.

    A process inherits that a signal is ignored, but not that it has a handler.
    """
    os.environ["FURIOSA_LLM_DATA_DIR"] = _data.name
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
