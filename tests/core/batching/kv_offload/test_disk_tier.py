from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fllm.batching import KVFormat
from fllm.batching.kv_offload import disk_tier
from fllm.batching.kv_offload.block_files import BlockFiles
from fllm.batching.kv_offload.disk_index import DiskIndex
from fllm.batching.kv_offload.disk_tier import DiskTier, Fetch

SIZE = 1000


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def tier_in(
    root: Path,
    *,
    limit: int = 10**6,
    clock: Callable[[], float] = time.monotonic,
    wake: Callable[[], None] = int,
) -> Iterator[tuple[DiskTier, BlockFiles]]:
    files = BlockFiles(root, KVFormat(block_bytes=SIZE, identity={"model": "m"}))
    index = DiskIndex(root, limit)
    index.scan()
    tier = DiskTier(files, index, wake, clock=clock)
    try:
        yield tier, files
    finally:
        tier.close(5)


def block(number: int) -> bytes:
    return bytes([number]) * SIZE


def keys(*numbers: int) -> list[bytes]:
    return [b"hash %d" % number for number in numbers]


def wait(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.002)


def read(tier: DiskTier, *numbers: int) -> list[bytes | None]:
    fetch = tier.fetch(keys(*numbers))
    assert fetch is not None
    wait(lambda: fetch.done)
    found = [fetch.get(key) for key in keys(*numbers)]
    return [None if each is None else bytes(each) for each in found]


def test_blocks_are_read_by_another_tier_of_the_directory_while_both_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_tier, "SCAN_SECONDS", 0.01)
    with tier_in(tmp_path) as (one, _), tier_in(tmp_path) as (two, _):
        for number in range(20):
            assert one.store(*keys(number), block(number))
            assert two.store(*keys(number + 10), block(number + 10))
        wait(lambda: all(key in one and key in two for key in keys(*range(30))))
        wait(lambda: len(list(tmp_path.glob("*/??/*"))) == 30)
        assert read(two, *range(30)) == [block(number) for number in range(30)]
        assert read(one, 29, 0) == [block(29), block(0)]
    with tier_in(tmp_path) as (three, files):
        assert read(three, 5) == [block(5)]
        assert three.used == 30 * files.file_size


def test_the_limit_holds_and_the_oldest_leave(tmp_path: Path) -> None:
    size = BlockFiles(tmp_path, KVFormat(block_bytes=SIZE, identity={"model": "m"})).file_size
    with tier_in(tmp_path, limit=3 * size + 5) as (tier, _):
        for number in range(5):
            tier.store(*keys(number), block(number))
            wait(lambda: tier.written_bytes == (number + 1) * size)  # noqa: B023
            assert sum(f.stat().st_size for f in tmp_path.rglob("*/*/*") if f.is_file()) <= 3 * size
        assert [key in tier for key in keys(0, 1, 2, 3, 4)] == [False, False, True, True, True]


def test_a_damaged_block_is_a_miss_and_can_be_written_again(tmp_path: Path) -> None:
    with tier_in(tmp_path) as (tier, files):
        tier.store(*keys(1), block(1))
        wait(lambda: tier.written_bytes > 0)
        path = tmp_path / files.name(*keys(1))
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        assert read(tier, 1) == [None]
        assert not path.exists()
        assert keys(1)[0] not in tier
        tier.store(*keys(1), block(1))
        wait(path.exists)
        assert read(tier, 1) == [block(1)]


def test_a_full_disk_is_one_warning_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with tier_in(tmp_path, clock=clock) as (tier, files):
        tier.store(*keys(0), block(0))
        wait(lambda: tier.written_bytes > 0)

        def full(name: str, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(files, "write", full)
            for number in (1, 2):
                clock.now += disk_tier.RETRY_SECONDS
                assert tier.writable
                tier.store(*keys(number), block(number))
                wait(lambda: not tier.writable)
                assert not tier.store(*keys(3), block(3))
        assert [record.getMessage() for record in caplog.records] == [
            "--kv-cache-dir can't be written; the server goes on without: No space left on device"
        ]
        assert tier.dropped == 4
        assert read(tier, 0) == [block(0)]
        clock.now += disk_tier.RETRY_SECONDS
        assert tier.store(*keys(4), block(4))
        wait(lambda: tier.written_bytes == 2 * files.file_size)


def test_a_disk_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, released = Clock(), threading.Event()
    with tier_in(tmp_path, clock=clock) as (tier, files):

        def hang(name: str) -> None:
            released.wait(5)

        monkeypatch.setattr(files, "read", hang)
        fetch = tier.fetch(keys(1, 2, 3))
        assert isinstance(fetch, Fetch)
        assert not tier.expired(fetch)
        clock.now += disk_tier.FETCH_SECONDS
        assert tier.expired(fetch)
        assert tier.fetch(keys(1)) is None
        assert "it does not respond" in caplog.text
        released.set()
        clock.now += disk_tier.RETRY_SECONDS
        assert tier.fetch(keys(1)) is not None


def test_a_disk_that_still_reads_for_others_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, released = Clock(), threading.Semaphore(0)
    with tier_in(tmp_path, clock=clock) as (tier, files):

        def slow(name: str) -> None:
            released.acquire(timeout=5)

        monkeypatch.setattr(files, "read", slow)
        first, last = tier.fetch(keys(1, 2, 3)), tier.fetch(keys(4))
        assert first is not None
        assert last is not None
        clock.now += disk_tier.FETCH_SECONDS / 2
        released.release()
        wait(lambda: tier._read_at > 0)
        clock.now += disk_tier.FETCH_SECONDS
        assert tier.expired(last), "it waits no longer"
        assert tier.fetch(keys(5)) is not None
        released.release(5)


def test_only_a_part_is_read_if_memory_is_short_and_sequences_share_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tier_in(tmp_path) as (tier, files):
        for number in range(4):
            tier.store(*keys(number), block(number))
        monkeypatch.setattr(disk_tier, "STAGED_BYTES", 2 * files.file_size)
        fetches = [tier.fetch(keys(0, 1, last)) for last in (2, 3)]
        wait(lambda: all(fetch is not None and fetch.done for fetch in fetches))
        read_by = [[fetch.get(key) for key in keys(0, 1, 2, 3)] for fetch in fetches if fetch]
        assert read_by == [[block(0), block(1), None, None]] * 2
        assert read_by[0][0] is read_by[1][0]
        assert tier.fetch(keys(3)) is None
        fetches.clear()
        read_by.clear()
        assert read(tier, 3) == [block(3)]


def test_blocks_that_can_not_be_written_in_time_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, woken = threading.Event(), threading.Event()
    with tier_in(tmp_path, wake=woken.set) as (tier, files):
        monkeypatch.setattr(disk_tier, "QUEUED_BYTES", 2 * files.file_size)
        original = files.write

        def slow(name: str, data: bytes) -> None:
            released.wait(5)
            original(name, data)

        monkeypatch.setattr(files, "write", slow)
        assert [tier.store(*keys(n), block(n)) for n in range(3)] == [True, True, False]
        assert tier.dropped == 1
        assert read(tier, 0, 1) == [block(0), block(1)], "what waits to be written can be read"
        assert woken.is_set()
        released.set()
        tier.close(5)
        assert tier.written_bytes == 2 * files.file_size
