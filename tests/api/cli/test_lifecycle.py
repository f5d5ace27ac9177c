"""Shutdown of a server whose backend does not stop."""

from __future__ import annotations

import subprocess
import sys

STUBBORN = """
import asyncio
from functools import partial
from fllm_api.cli import lifecycle, model_loader

class Stubborn:
    async def stop(self):
        while True:
            await asyncio.sleep(60)

lifecycle.BACKEND_STOP_TIMEOUT = model_loader.BACKEND_STOP_TIMEOUT = 0.1
asyncio.run(lifecycle._stop(partial(model_loader.stop_backend, Stubborn())))
"""


def test_a_backend_that_does_not_stop_does_not_block_the_exit() -> None:
    done = subprocess.run([sys.executable, "-c", STUBBORN], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "the backend did not stop within 0.1 s; exiting\n"
