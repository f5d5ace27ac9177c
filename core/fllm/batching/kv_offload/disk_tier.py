"""KV blocks on disk. Threads of its own read and write them; the engine thread never waits for the disk."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue

from fllm.batching.kv_offload.block_files import BlockFiles
from fllm.batching.kv_offload.disk_index import DiskIndex

log = logging.getLogger("fllm.batching")

FETCH_SECONDS = 1.0
"""Seconds that a sequence waits for its blocks. What has not been read by then is computed."""
RETRY_SECONDS = 60.0
"""Seconds without reading after a disk that did not respond, or without writing after an error."""
SCAN_SECONDS = 5.0
"""Seconds between two looks at what other engines have written to the directory."""
SCAN_PAUSE = 20
"""Time between two looks at a large directory, as a multiple of the time that a look takes."""
QUEUED_BYTES = STAGED_BYTES = 256 << 20
"""Bytes of blocks that wait to be written, and of blocks that were read and that sequences wait for."""
READERS = 2
WRITER_NICENESS = 10


class _Read:
    """A block that is being read. Sequences with the same prefix share it."""

    __slots__ = ("__weakref__", "block_hash", "data", "done", "name")

    def __init__(self, block_hash: bytes, name: str) -> None:
        self.block_hash = block_hash
        self.name = name
        self.data: memoryview | None = None
        self.done = False


class Fetch:
    """The blocks that a sequence waits for. Those that no sequence waits for any more are not read."""

    def __init__(self, reads: Iterable[_Read] = (), expires_at: float = 0.0) -> None:
        self._reads = {read.block_hash: read for read in reads}
        self.expires_at = expires_at
        self.in_ram: dict[bytes, bytes] = {}
        """Blocks that were in RAM already, so that they do not leave it before the sequence runs."""

    @property
    def done(self) -> bool:
        """Whether all blocks have been read, or were found to be missing."""
        return all(read.done for read in self._reads.values())

    def get(self, block_hash: bytes) -> memoryview | None:
        """Return a block's data, if it has been read."""
        read = self._reads.get(block_hash)
        return read.data if read is not None else None


class DiskTier:
    """Blocks in files that several engines share. The engine thread calls its methods."""

    def __init__(
        self,
        files: BlockFiles,
        index: DiskIndex,
        wake: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._index = index
        self._wake = wake
        self._clock = clock
        self._reads: weakref.WeakValueDictionary[bytes, _Read] = weakref.WeakValueDictionary()
        self._to_read: SimpleQueue[weakref.ref[_Read] | None] = SimpleQueue()
        self._to_write: SimpleQueue[tuple[str, bytes] | None] = SimpleQueue()
        self._queued: dict[str, bytes] = {}
        """Blocks that wait to be written. They can be read already."""
        self._unreadable_until = self._unwritable_until = -1.0
        self._read_at = -math.inf
        """When a block was read, or found to be missing."""
        self._warned = False
        self.read_bytes = self.written_bytes = self.dropped = 0
        self._readers = [self._start(self._read_all, f"kv-read-{number}") for number in range(READERS)]
        self._writer = self._start(self._write_all, "kv-write")

    @property
    def used(self) -> int:
        """Bytes of all files in the directory, of other models too."""
        return self._index.used

    @property
    def limit(self) -> int:
        """Maximum of `used`."""
        return self._index.limit

    @property
    def writable(self) -> bool:
        """Whether it accepts blocks: not for a while after an error."""
        return self._clock() >= self._unwritable_until

    def __contains__(self, block_hash: bytes) -> bool:
        name = self._files.name(block_hash)
        return name in self._index or name in self._queued

    def fetch(self, block_hashes: Iterable[bytes]) -> Fetch | None:
        """Start to read blocks, as many as memory allows. Return ``None`` if that can't be done now."""
        if self._clock() < self._unreadable_until:
            return None
        room = STAGED_BYTES // self._files.file_size - len(self._reads)
        reads: list[_Read] = []
        for block_hash in block_hashes:
            read = self._reads.get(block_hash)
            if read is None:
                if room <= 0:
                    break
                room -= 1
                read = self._reads[block_hash] = _Read(block_hash, self._files.name(block_hash))
                self._to_read.put(weakref.ref(read))
            reads.append(read)
        return Fetch(reads, self._clock() + FETCH_SECONDS) if reads else None

    def expired(self, fetch: Fetch) -> bool:
        """Return whether a sequence has waited long enough.

        If nothing was read meanwhile, for no other sequence, the disk does not respond: then nothing is read
        for a while.
        """
        now = self._clock()
        if now < fetch.expires_at:
            return False
        if self._read_at < fetch.expires_at - FETCH_SECONDS and now >= self._unreadable_until:
            self._unreadable_until = now + RETRY_SECONDS
            log.warning("--kv-cache-dir is not read for %g s: it does not respond", RETRY_SECONDS)
        return True

    @property
    def has_room(self) -> bool:
        """Whether the queue of the writer takes one more block."""
        return (len(self._queued) + 1) * self._files.file_size <= QUEUED_BYTES

    def store(self, block_hash: bytes, data: bytes) -> bool:
        """Queue a block to be written. Return False, and drop it, if too many wait already."""
        name = self._files.name(block_hash)
        if name in self._queued or name in self._index:
            return True
        if not self.writable or not self.has_room:
            self.dropped += 1
            return False
        self._queued[name] = data
        self._to_write.put((name, data))
        return True

    def close(self, timeout: float) -> None:
        """Write what waits, for ``timeout`` seconds at most, and end the threads."""
        self._to_write.put(None)
        for _ in self._readers:
            self._to_read.put(None)
        self._writer.join(timeout)

    def _start(self, target: Callable[[], None], name: str) -> threading.Thread:
        # A daemon: a disk that hangs does not keep the process from its end.
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def _read_all(self) -> None:
        while (reference := self._to_read.get()) is not None:
            if (read := reference()) is not None:
                try:
                    read.data = self._read(read.name)
                except Exception:
                    log.exception("a KV block can't be read")
                self._read_at = self._clock()
                read.done = True
            del read
            if self._to_read.empty():
                self._wake()

    def _read(self, name: str) -> memoryview | None:
        """Return a block's data, or ``None``; a file that is damaged is removed."""
        if (queued := self._queued.get(name)) is not None:
            return memoryview(queued)
        try:
            data = self._files.read(name)
            if data is None:
                self._index.discard(name)
                self._files.remove(name)
                return None
            self._files.touch(name)
        except OSError as error:
            self._index.discard(name)
            self._warn("can't be read", error)
            return None
        self._index.add(name, self._files.file_size)
        self.read_bytes += self._files.file_size
        return data

    def _write_all(self) -> None:
        with suppress(OSError, AttributeError):  # a niceness of a thread exists on Linux only
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), WRITER_NICENESS)
        scan_at = time.monotonic() + SCAN_SECONDS
        while True:
            try:
                item = self._to_write.get(timeout=SCAN_SECONDS)
                if item is None:
                    return
                self._write(*item)
            except Empty:
                pass
            except Exception:
                log.exception("a KV block can't be written")
            if (started := time.monotonic()) >= scan_at:
                with suppress(OSError):
                    self._index.scan()
                ended = time.monotonic()
                scan_at = ended + max(SCAN_SECONDS, SCAN_PAUSE * (ended - started))

    def _write(self, name: str, data: bytes) -> None:
        try:
            if self.writable and name not in self._index and self._index.make_room(self._files.file_size):
                self._files.write(name, data)
                self._index.add(name, self._files.file_size)
                self.written_bytes += self._files.file_size
            elif name not in self._index:
                self.dropped += 1
        except OSError as error:
            self.dropped += 1
            self._unwritable_until = self._clock() + RETRY_SECONDS
            self._warn("can't be written; the server goes on without", error)
        finally:
            self._queued.pop(name, None)

    def _warn(self, problem: str, error: OSError) -> None:
        """Log the first error of the disk."""
        if not self._warned:
            self._warned = True
            log.warning("--kv-cache-dir %s: %s", problem, error.strerror or error)
