"""Remove files that have expired, and contents that no record knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fllm_dialects.batches.batch_store import BatchStore
from fllm_dialects.batches.contents import Contents, age

ABANDONED_SECONDS = 2 * 86400
"""Age of a content without a record after which it is removed: longer than an upload or a batch takes."""


async def delete_expired(store: BatchStore, contents: Contents, clock: Callable[[], float]) -> None:
    """Remove expired files that no batch uses. Contents without a record are removed when they are old."""
    for owner, path in await asyncio.to_thread(lambda: list(contents.all())):
        file = await store.file(owner, path.name)
        if file is None:
            is_over = await asyncio.to_thread(age, path) > ABANDONED_SECONDS
        else:
            is_over = file.expires_at is not None and file.expires_at <= clock()
        if is_over and not await store.is_in_use(path.name):
            await store.delete_file(owner, path.name)
            await asyncio.to_thread(contents.delete, owner, path)
