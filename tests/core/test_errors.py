"""Which errors come from a limit of the system."""

from __future__ import annotations

import errno

import pytest

from fllm.errors import exhausted_resource


@pytest.mark.parametrize(
    ("error", "resource"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (ImportError("libx.so: failed to map segment from shared object"), "memory"),
        (OSError(errno.EMFILE, "Too many open files"), "open files"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "processes and threads"),
        (RuntimeError("can't start new thread"), "processes and threads"),
    ],
)
def test_a_limit_of_the_system_is_named(error: Exception, resource: str) -> None:
    outer = ValueError("outer")
    outer.__cause__ = error
    for each in (error, outer):
        reason = exhausted_resource(each)
        assert reason is not None
        assert reason.startswith(
            f"a limit of the system is too low for this server: {resource} ({type(error).__name__}"
        )


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "gone"), RuntimeError("broken"), ImportError("no x")]
)
def test_another_error_is_not_attributed_to_a_limit(error: Exception) -> None:
    assert exhausted_resource(error) is None
