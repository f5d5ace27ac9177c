"""The pytest plugin of this distribution: the fixture ``serve``.

Every pytest run in the environment imports this module, so it imports nothing else at the top.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fllm.testing import Serve


@pytest.fixture(scope="session")
def serve() -> Iterator[Serve]:
    """Return a function that starts a real server: ``serve("MODEL", "--plugin", "my.py")``."""
    from fllm.testing.server import shared_servers

    with shared_servers() as servers:
        yield servers
