"""The limit of open files at the start."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from fllm_api.cli.open_files import MIN_OPEN_FILES, raise_file_limit


@pytest.fixture
def most() -> Iterator[int]:
    """Return the hard limit of open files, and restore the limits."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_the_limit_is_raised_to_what_is_allowed(most: int) -> None:
    assert most > MIN_OPEN_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (MIN_OPEN_FILES, most))
    raise_file_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)
