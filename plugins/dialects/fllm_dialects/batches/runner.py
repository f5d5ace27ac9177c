"""The batches that are not complete, each in a task of its own. They survive the server."""

from __future__ import annotations

import asyncio
import logging

from fllm_dialects.batches.protocol import ENDED, Batch, StoredBatch
from fllm_dialects.batches.run import BatchRun, BatchTools

RETRY_SECONDS = 30.0
"""Seconds until a batch goes on whose progress could not be stored."""

log = logging.getLogger("fllm.batches")


class BatchRunner:
    """Starts batches, knows their present state, and stops with the server."""

    def __init__(self, tools: BatchTools) -> None:
        self._tools = tools
        self._runs: dict[str, BatchRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    def start(self, stored: StoredBatch) -> None:
        """Run a batch that has not ended, from where it is."""
        run = self._runs[stored.batch.id] = BatchRun(stored, self._tools)
        task = asyncio.create_task(self._keep_running(run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def find(self, batch_id: str) -> BatchRun | None:
        """Return a batch while it runs."""
        return self._runs.get(batch_id)

    def present(self, stored: StoredBatch) -> Batch:
        """Return a stored batch with its counts as they are now."""
        run = self._runs.get(stored.batch.id)
        return stored.batch if run is None else run.batch

    def count(self, owner: str) -> int:
        """Return how many batches of a client have not ended."""
        return sum(run.stored.owner == owner for run in self._runs.values())

    async def stop(self) -> None:
        """End all requests; what is written stays, and the next server continues."""
        self._stopped.set()
        for run in self._runs.values():
            run.interrupt("stopped")
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _keep_running(self, run: BatchRun) -> None:
        """Run a batch until it has ended or the server stops; try again later after a failure."""
        while not self._stopped.is_set():
            attempt = asyncio.create_task(run.run())
            await asyncio.wait([attempt])
            if (error := attempt.exception()) is not None:
                log.error("batch %s is interrupted", run.stored.batch.id, exc_info=error)
            if run.stored.batch.status in ENDED:
                del self._runs[run.stored.batch.id]
                return
            if error is not None:
                await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(RETRY_SECONDS):
                await self._stopped.wait()
        except TimeoutError:
            pass
