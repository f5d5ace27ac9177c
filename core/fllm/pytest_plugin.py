"""What pytest finds where this distribution is installed: the fixture ``serve``.

Every run of pytest in such an environment imports this, so it imports nothing that a run can do without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fllm.testing import Serve


@pytest.fixture(scope="session")
def serve() -> Iterator[Serve]:
    """``serve("MODEL", "--plugin", "my.py")`` gives a real server: its ``url``, ``log()`` and ``stop()``."""
    from fllm.testing.server import shared

    with shared() as servers:
        yield servers
