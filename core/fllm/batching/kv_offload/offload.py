"""Where idle blocks of the prefix cache go, and where they are found again: RAM first, then the disk.

- A block that the pool evicts goes to RAM, and a block that leaves RAM goes to the disk.
- While the engine is idle and when it ends, idle blocks that the disk lacks are written there.
- The first time that a sequence is about to run, its blocks that only the disk has are read. Until they are
  there, or for `FETCH_SECONDS`, it waits and others run.
- Blocks of sequences with a LoRA adapter stay out: an adapter's id means another adapter in another process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from fllm.batching.block_pool import BlockPool
from fllm.batching.kv_offload.block_files import BlockFiles
from fllm.batching.kv_offload.disk_index import DiskIndex
from fllm.batching.kv_offload.disk_tier import DiskTier, Fetch
from fllm.batching.kv_offload.ram_tier import ENTRY_BYTES, RamTier
from fllm.batching.runner import KVFormat, MovesBlocks
from fllm.config import BackendConfig
from fllm.containment import contained
from fllm.errors import ConfigError, format_error
from fllm.private_directory import open_directory
from fllm.values import CacheChanges, CacheTierStats

log = logging.getLogger("fllm.batching")

IDLE_SECONDS = 0.25
"""Seconds without work after which blocks are written to the disk."""
IDLE_BLOCKS = 16
"""Number of blocks that are copied for the disk before the engine looks for work again."""
CLOSE_SECONDS = 5.0
"""Seconds that the end of the engine may take to write blocks."""


class Found(NamedTuple):
    """A block that a tier holds."""

    data: bytes | memoryview
    tier: str


def check_offload(config: BackendConfig, runner: object) -> bool:
    """Return whether the options ask for tiers. Raise `ConfigError` if they can't have effect."""
    if config.kv_offload_memory is None and config.kv_cache_dir is None:
        return False
    option = "--kv-offload-memory" if config.kv_offload_memory is not None else "--kv-cache-dir"
    if not config.enable_prefix_caching:
        raise ConfigError(f"{option} keeps blocks of the prefix cache: remove --no-enable-prefix-caching")
    if not isinstance(runner, MovesBlocks):
        raise ConfigError(f"{option}: this backend can't copy its KV cache; leave it out")
    if config.kv_cache_dir is not None:
        open_directory(config.kv_cache_dir)
    return True


def open_offload(config: BackendConfig, runner: MovesBlocks, wake: Callable[[], None]) -> KVOffload:
    """Create the tiers of a runner whose KV cache is allocated. Raise `ConfigError`.

    ``wake`` is called from another thread when blocks have been read.
    """
    kv_format, ram, disk = runner.kv_format(), None, None
    if config.kv_offload_memory is not None:
        ram = RamTier(config.kv_offload_memory)
        _warn_if_too_small("--kv-offload-memory", ram.limit, kv_format.block_bytes + ENTRY_BYTES)
    if config.kv_cache_dir is not None:
        root = open_directory(config.kv_cache_dir)
        files, index = BlockFiles(root, kv_format), DiskIndex(root, config.kv_cache_dir_size)
        _warn_if_too_small("--kv-cache-dir-size", index.limit, files.file_size)
        try:
            index.scan()
        except OSError as error:
            raise ConfigError(f"--kv-cache-dir {root} can't be read: {error.strerror}") from error
        disk = DiskTier(files, index, wake)
        log.info("KV blocks on disk: directory=%s files=%d bytes=%d", root, len(index), index.used)
    return KVOffload(runner, kv_format, ram, disk)


def _warn_if_too_small(option: str, limit: int, block_bytes: int) -> None:
    if limit < block_bytes:
        log.warning(
            "%s has no effect: a block takes %d bytes, and the limit is %d", option, block_bytes, limit
        )


class KVOffload:
    """The tiers below the KV cache. The engine thread calls its methods."""

    def __init__(
        self, runner: MovesBlocks, kv_format: KVFormat, ram: RamTier | None, disk: DiskTier | None
    ) -> None:
        self._runner = runner
        self._block_bytes = kv_format.block_bytes
        self._ram = ram
        self._disk = disk
        self.saved = False
        """Whether nothing is left to be written while the engine is idle. Set to False by a step."""
        self._unsaved: list[bytes] | None = None
        """Hashes of the blocks that are still to be written, the most recently used last."""
        self._excluded: set[bytes] = set()
        """Hashes of the blocks in the KV cache that no tier may hold."""
        self._left_ram: list[bytes] | None = None
        """Hashes of the blocks that have left RAM, for `held_changes`; ``None``: nobody needs them."""
        self._hits: dict[str, int] = dict.fromkeys(("ram", "disk"), 0)
        self._misses = dict.fromkeys(("ram", "disk"), 0)

    def exclude(self, block_hashes: Iterable[bytes]) -> None:
        """Keep blocks out of all tiers."""
        self._excluded.update(block_hashes)

    def record_changes(self) -> None:
        """Record from now on which blocks leave RAM."""
        self._left_ram = []

    def held_changes(self, changes: CacheChanges | None, pool: BlockPool) -> CacheChanges | None:
        """Return what the KV cache and RAM together have gained and lost, of the changes of the KV cache."""
        if (ram := self._ram) is None or self._left_ram is None:
            return changes
        left, self._left_ram = self._left_ram, []
        changes = changes or CacheChanges()
        lost = [each for each in changes.lost if each not in ram]
        lost += [each for each in left if each not in ram and not pool.find_cached([each])]
        return CacheChanges(gained=changes.gained, lost=lost) if changes.gained or lost else None

    def save_evicted(self, pool: BlockPool) -> None:
        """Copy the blocks that the pool has evicted, before others are written in their place."""
        wanted: list[tuple[int, bytes]] = []
        for block, block_hash in pool.take_evicted():
            if block_hash in self._excluded:
                self._excluded.discard(block_hash)
            elif self._ram is not None:
                if self._ram.get(block_hash) is None:
                    wanted.append((block, block_hash))
            elif self._disk is not None and block_hash not in self._disk:
                wanted.append((block, block_hash))
        copies = self._read([block for block, _ in wanted])
        for (_, block_hash), data in zip(wanted, copies, strict=False):
            self._put(block_hash, data)

    def fetch(self, block_hashes: Sequence[bytes], pool: BlockPool, block_size: int) -> Fetch:
        """Find the blocks that a sequence needs, and start to read those that only the disk has."""
        missing, on_disk, in_ram = len(block_hashes), list[bytes](), dict[bytes, bytes]()
        for block_hash in block_hashes:
            if pool.find_cached([block_hash]):
                missing -= 1
            elif self._ram is not None and (data := self._ram.get(block_hash)) is not None:
                in_ram[block_hash] = data
            elif self._disk is not None and block_hash in self._disk:
                on_disk.append(block_hash)
            else:
                break
        missing -= len(in_ram)
        self._misses["ram"] += missing * block_size
        self._misses["disk"] += (missing - len(on_disk)) * block_size
        fetch = (self._disk.fetch(on_disk) if self._disk is not None and on_disk else None) or Fetch()
        fetch.in_ram = in_ram
        return fetch

    def expired(self, fetch: Fetch) -> bool:
        """Return whether a sequence should not wait for its blocks any longer."""
        return fetch.done or self._disk is None or self._disk.expired(fetch)

    def find(self, block_hash: bytes, fetch: Fetch | None) -> Found | None:
        """Return a block that is in RAM, or that was fetched from the disk."""
        if fetch is not None and (data := fetch.in_ram.get(block_hash)) is not None:
            return Found(data, "ram")
        if self._ram is not None and (data := self._ram.get(block_hash)) is not None:
            return Found(data, "ram")
        if fetch is not None and (fetched := fetch.get(block_hash)) is not None:
            return Found(fetched, "disk")
        return None

    def restore(self, found: Sequence[tuple[int, Found]], block_size: int) -> bool:
        """Write what was found into blocks of the KV cache. Return whether that succeeded."""
        if found:
            with contained(self._on_error):
                self._runner.write_blocks([block for block, _ in found], [each.data for _, each in found])
                for _, each in found:
                    self._hits[each.tier] += block_size
                return True
        return not found

    def save_idle(self, pool: BlockPool) -> None:
        """Queue some blocks for the disk, those of the pool and of RAM, the most recently used first."""
        if self._disk is None or not self._disk.writable:
            self.saved = True
            return
        if self._unsaved is None:
            self._unsaved = self._find_unsaved(pool)
        for _ in range(IDLE_BLOCKS):
            if not self._unsaved or not self._disk.has_room:
                break
            block_hash = self._unsaved.pop()
            if (data := self._copy(block_hash, pool)) is not None:
                self._disk.store(block_hash, data)
        self.saved = not self._unsaved

    def step_begins(self) -> None:
        """Reset what is to be written, because the blocks will change."""
        self.saved, self._unsaved = False, None

    def close(self, pool: BlockPool) -> None:
        """Write the blocks that the disk lacks, for `CLOSE_SECONDS` at most, and end."""
        if self._disk is None:
            return
        ends_at = time.monotonic() + CLOSE_SECONDS
        self.step_begins()
        while not self.saved and (left := ends_at - time.monotonic()) > 0:
            self.save_idle(pool)
            if not self._disk.has_room:
                time.sleep(min(left, 0.01))
        self._disk.close(max(ends_at - time.monotonic(), 0.0))

    def stats(self) -> dict[str, CacheTierStats]:
        """Return the totals of each tier. Any thread may call this."""
        tiers: dict[str, CacheTierStats] = {}
        if (ram := self._ram) is not None:
            tiers["ram"] = CacheTierStats(
                hits=self._hits["ram"], misses=self._misses["ram"], used_bytes=ram.used, limit_bytes=ram.limit
            )
        if (disk := self._disk) is not None:
            tiers["disk"] = CacheTierStats(
                hits=self._hits["disk"],
                misses=self._misses["disk"],
                used_bytes=disk.used,
                limit_bytes=disk.limit,
                read_bytes=disk.read_bytes,
                written_bytes=disk.written_bytes,
                dropped_blocks=disk.dropped,
            )
        return tiers

    def _read(self, blocks: list[int]) -> Sequence[bytes]:
        """Return copies of blocks; none if the runner fails."""
        with contained(self._on_error):
            return self._runner.read_blocks(blocks) if blocks else ()
        return ()

    def _on_error(self, error: BaseException) -> None:
        log.error("KV blocks can't be copied: %s", format_error(error), exc_info=error)

    def _put(self, block_hash: bytes, data: bytes) -> None:
        leaving = [(block_hash, data)] if self._ram is None else self._ram.put(block_hash, data)
        if self._left_ram is not None:
            self._left_ram += [each for each, _ in leaving]
        if self._disk is not None:
            for each in leaving:
                self._disk.store(*each)

    def _find_unsaved(self, pool: BlockPool) -> list[bytes]:
        """Return the hashes of idle blocks that the disk lacks, the most recently used last."""
        assert self._disk is not None, "only a disk is written to"
        idle = list(pool.idle_hashes())
        candidates = [*reversed(list(self._ram.newest_first() if self._ram else ())), *idle]
        disk, excluded = self._disk, self._excluded
        room = disk.limit // max(self._block_bytes, 1)
        unsaved = [each for each in dict.fromkeys(candidates) if each not in excluded and each not in disk]
        return unsaved[-room:] if room else []

    def _copy(self, block_hash: bytes, pool: BlockPool) -> bytes | None:
        """Return the data of a block that is in RAM or in the pool."""
        if self._ram is not None and (kept := self._ram.peek(block_hash)) is not None:
            return kept
        copies = self._read(pool.find_cached([block_hash]))
        return copies[0] if copies else None
