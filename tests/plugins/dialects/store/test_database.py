"""Transactions of a store: durable, isolated by owner, shared between servers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from fllm.errors import ConfigError
from fllm_dialects.store import (
    Database,
    Page,
    Record,
    Records,
    StoreFull,
    StoreSettings,
    StoreUnavailable,
    open_database,
    prepare_store,
)

KEY, OTHER_KEY = bytes(range(32)), bytes(32)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(
    path: Path | None, settings: StoreSettings | None = None, clock: Clock | None = None
) -> AsyncGenerator[Database]:
    database = await open_database(path, settings or StoreSettings(), clock=clock or Clock())
    try:
        yield database
    finally:
        await database.close()


def record(name: str, body: bytes = b"body", *, owner: str = "ann", **fields: object) -> Record:
    return Record(name, owner, "thing", body, **fields)  # type: ignore[arg-type]


async def put(database: Database, *records: Record) -> None:
    for each in records:
        assert await database.write(partial(Records.put, record=each))


async def get(database: Database, name: str, owner: str = "ann") -> bytes | None:
    found = await database.read(lambda records: records.get("thing", name, owner))
    return found and found.body


async def names(database: Database, page: Page | None = None, owner: str = "ann") -> list[str] | None:
    found = await database.read(lambda records: records.owned("thing", owner, page))
    return found and [each.id for each in found]


def test_a_record_is_there_after_the_file_was_closed(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path / "s") as database:
            await put(database, record("1", b"a"), record("1", b"b"))
            assert database.durable
        async with opened(tmp_path / "s") as database:
            assert await get(database, "1") == b"b"
            assert await database.write(lambda records: records.delete("thing", "1", "ann"))
            assert not await database.write(lambda records: records.delete("thing", "1", "ann"))
            assert await get(database, "1") is None

    asyncio.run(run())


def test_a_record_is_found_only_by_its_owner_and_as_its_kind(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path / "s") as database:
            await put(database, record("1"), record("1", b"his", owner="bob"))
            assert await get(database, "1") == b"body"
            assert await get(database, "1", "bob") == b"his"
            assert await get(database, "1", "") is None
            assert await database.read(lambda records: records.get("other", "1", "ann")) is None
            assert not await database.write(lambda records: records.delete("thing", "1", "eve"))
            await database.write(lambda records: records.delete("thing", "1", "bob"))
            assert await get(database, "1") == b"body"

    asyncio.run(run())


def test_writes_at_the_same_time_share_a_commit_and_one_that_fails_harms_no_other(tmp_path: Path) -> None:
    async def fail(records: Records) -> None:
        await records.put(record("half"))
        raise KeyError("a bug")

    async def run() -> None:
        async with opened(tmp_path / "s") as database:
            writes = [database.write(partial(Records.put, record=record(str(n)))) for n in range(200)]
            results = await asyncio.gather(*writes, database.write(fail), return_exceptions=True)
            assert results[:200] == [True] * 200
            assert isinstance(results[200], KeyError)
            assert len(await names(database) or []) == 200

    asyncio.run(run())


def test_a_write_whose_caller_leaves_is_complete_or_has_not_begun(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path / "s") as database:
            task = asyncio.create_task(database.write(partial(Records.put, record=record("1"))))
            await asyncio.sleep(0)
            task.cancel()
            await put(database, record("2"))
            assert await names(database) == ["1", "2"]

    asyncio.run(run())


def test_children_have_an_order_and_are_deleted_with_their_parent(tmp_path: Path) -> None:
    def child(name: str) -> Record:
        return record(name, name.encode(), parent="p")

    async def ids(database: Database, **page: object) -> list[str] | None:
        wanted = Page(limit=2, **page)  # type: ignore[arg-type]
        found = await database.read(lambda records: records.children("p", "ann", wanted))
        return found if found is None else [each.id for each in found]

    async def run() -> None:
        async with opened(tmp_path / "s") as database:
            orphan = await database.write(lambda records: records.append([child("a")]))
            assert not orphan
            await put(database, record("p"))
            await database.write(lambda records: records.append([child("a"), child("b")]))
            await database.write(lambda records: records.append([child("c")]))
            assert await ids(database) == ["a", "b"]
            assert await ids(database, after="b") == ["c"]
            assert await ids(database, order="desc") == ["c", "b"]
            assert await ids(database, order="desc", after="b") == ["a"]
            assert await ids(database, before="c") == ["a", "b"]
            assert await ids(database, after="nowhere") is None
            found = await database.read(lambda records: records.find_children(["c", "p", "x"], "ann"))
            assert {name: each.body for name, each in found.items()} == {"c": b"c"}
            assert await database.read(lambda records: records.find_children(["c"], "bob")) == {}
            await put(database, record("q"))
            await database.write(lambda records: records.append([record("c", b"longer", parent="q")]))
            found = await database.read(lambda records: records.find_children(["c", "c"], "ann"))
            assert list(found) == ["c"]
            sizes = [
                await database.read(partial(Records.size_of_children, parents=parents, owner="ann"))
                for parents in (["p"], ["q"], ["p", "q", "nowhere"])
            ]
            assert sizes == [3 * 257, 262, 3 * 257 + 262]
            both = await database.read(
                partial(Records.children_of, parents=["q", "p", "nowhere"], owner="ann", kinds=["thing"])
            )
            assert {parent: [each.id for each in found] for parent, found in both.items()} == {
                "p": ["a", "b", "c"],
                "q": ["c"],
            }
            await database.write(lambda records: records.delete("thing", "q", "ann"))
            await database.write(lambda records: records.delete("thing", "p", "ann"))
            assert await ids(database) == []
            assert await database.read(Records.bytes_used) == 0

    asyncio.run(run())


def test_lists_of_an_owner_have_pages(tmp_path: Path) -> None:
    async def run() -> None:
        clock = Clock()
        async with opened(tmp_path / "s", clock=clock) as database:
            for name in "zyx":
                clock.now += 1
                await put(database, record(name))
            await put(database, record("other", owner="bob"))
            assert await names(database) == ["z", "y", "x"]
            assert await names(database, Page(limit=1, after="z")) == ["y"]
            assert await names(database, Page(limit=5, order="desc", after="y")) == ["z"]
            assert await names(database, Page(limit=5, after="other")) is None

    asyncio.run(run())


def test_a_record_expires_after_a_time_without_use(tmp_path: Path) -> None:
    async def run() -> None:
        clock = Clock()
        async with opened(tmp_path / "s", StoreSettings(ttl=10), clock) as database:
            await put(database, record("old"), record("used"), record("working", server="me"))
            clock.now += 9
            await database.write(lambda records: records.touch(["used"], "ann"))
            clock.now += 2
            assert await names(database) == ["used", "working"]
            assert await get(database, "old") is None
            assert await database.write(partial(Records.expire, most=10)) == 1
            clock.now += 1000
            assert await names(database) == ["working"]

    asyncio.run(run())


def test_the_largest_owner_loses_what_was_not_used_for_longest(tmp_path: Path) -> None:
    async def run() -> None:
        clock = Clock()
        async with opened(tmp_path / "s", StoreSettings(max_bytes=100_000), clock) as database:
            await put(database, record("1", owner="bob"))
            for number in range(40):
                clock.now += 1
                await put(database, record(str(number), bytes(10_000)))
            assert await names(database) == [str(number) for number in range(31, 40)]
            assert await get(database, "1", "bob") == b"body"
            assert await database.read(Records.bytes_used) <= 100_000
            with pytest.raises(StoreFull, match="60000 bytes are too many to store; the maximum is 50000"):
                await put(database, record("large", bytes(60_000)))
            working = [record(f"w{n}", bytes(45_000), server="me") for n in range(3)]
            with pytest.raises(StoreFull, match="all that it keeps is in use"):
                await put(database, *working)
            assert await get(database, "w1") == bytes(45_000)

    asyncio.run(run())


def test_a_lower_limit_keeps_what_was_used_last_and_small_owners(tmp_path: Path) -> None:
    async def run() -> None:
        clock = Clock()
        async with opened(tmp_path / "s", clock=clock) as database:
            await put(database, record("1", owner="carl"))
            for number in range(300):
                clock.now += 1
                await put(database, *(record(str(number), bytes(1000), owner=who) for who in ("ann", "bob")))
        async with opened(tmp_path / "s", StoreSettings(max_bytes=100_000), clock) as database:
            clock.now += 1
            await put(database, record("300"))
            assert 95_000 < await database.read(Records.bytes_used) <= 100_000
            assert await get(database, "1", "carl") == b"body"
            for who in ("ann", "bob"):
                kept = await database.read(partial(Records.owned, kind="thing", owner=who))
                last = 301 if who == "ann" else 300
                assert [each.id for each in kept or ()] == [
                    str(n) for n in range(last - len(kept or ()), last)
                ]
                assert 30 < len(kept or ()) < 50

    asyncio.run(run())


def test_an_owner_with_one_large_list_takes_nothing_from_others(tmp_path: Path) -> None:
    async def run() -> None:
        clock = Clock()
        async with opened(tmp_path / "s", StoreSettings(max_bytes=100_000), clock) as database:
            await put(database, record("1", owner="bob"), record("list"))
            clock.now += 1
            items = [record(str(number), bytes(10_000), parent="list") for number in range(10)]
            for item in items[:9]:
                await database.write(partial(Records.append, records=[item]))
            with pytest.raises(StoreFull):
                await database.write(partial(Records.append, records=items[9:]))
            assert await get(database, "1", "bob") == b"body"
            await put(database, record("2", bytes(10_000), owner="bob"))
            assert await names(database) == []

    asyncio.run(run())


def test_the_file_is_private_and_becomes_smaller_again(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.touch(mode=0o644)

    async def run() -> None:
        async with opened(path) as database:
            await put(database, record("1", os.urandom(3_000_000)))
            assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
            await database.write(lambda records: records.delete("thing", "1", "ann"))
        assert path.stat().st_size > 3_000_000
        async with opened(path) as database:
            await asyncio.sleep(0.1)  # it is shortened when it is opened, and each minute
        assert path.stat().st_size < 100_000
        assert [file.name for file in tmp_path.iterdir()] == ["s"]

    asyncio.run(run())


def test_an_encrypted_file_holds_no_text_and_opens_with_its_key_only(tmp_path: Path) -> None:
    path, body = tmp_path / "s", b"a secret text " * 100_000

    async def run() -> None:
        async with opened(path, StoreSettings(key=KEY)) as database:
            await put(database, record("1", body))
            assert b"a secret text" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
            assert await get(database, "1") == body
        with pytest.raises(ConfigError, match="is encrypted with another key"):
            await open_database(path, StoreSettings(key=OTHER_KEY))
        with pytest.raises(ConfigError, match="is encrypted: give its key"):
            await open_database(path, StoreSettings())
        async with opened(path, StoreSettings(key=KEY)) as database:
            assert await get(database, "1") == body

    asyncio.run(run())


def test_a_file_with_records_is_not_encrypted_later(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path / "s"):
            pass
        async with opened(tmp_path / "s", StoreSettings(key=KEY)):
            pass  # it was empty
        async with opened(tmp_path / "s") as database:
            await put(database, record("1"))
        with pytest.raises(ConfigError, match="is not encrypted: move it away, or give no key"):
            await open_database(tmp_path / "s", StoreSettings(key=KEY))

    asyncio.run(run())


@pytest.mark.parametrize("change", ["id = '2'", "owner = 'eve'", "body = zeroblob(40)", "body = x'00'"])
def test_an_encrypted_record_that_was_changed_or_moved_is_not_served(tmp_path: Path, change: str) -> None:
    async def run() -> None:
        async with opened(tmp_path / "s", StoreSettings(key=KEY)) as database:
            await put(database, record("1"))
            with sqlite3.connect(tmp_path / "s") as connection:
                connection.execute(f"UPDATE records SET {change}")
            connection.close()
            name, owner = ("2" if "id" in change else "1"), ("eve" if "owner" in change else "ann")
            with pytest.raises(StoreUnavailable, match="was changed and cannot be read"):
                await get(database, name, owner)

    asyncio.run(run())


@pytest.mark.parametrize("damage", ["header", "page", "text"])
def test_a_damaged_file_is_moved_away(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    path = tmp_path / "s"

    async def run() -> None:
        async with opened(path) as database:
            await put(database, *(record(str(number), bytes(1000)) for number in range(20)))
        content = bytearray(path.read_bytes())
        match damage:
            case "header":
                content[:16] = os.urandom(16)
            case "page":
                content[4096:] = os.urandom(len(content) - 4096)
            case _:
                content = bytearray(b"this is not a database\n" * 1000)
        path.write_bytes(content)
        async with opened(path) as database:
            assert await names(database) == []
            await put(database, record("new"))
        [kept] = tmp_path.glob("s-damaged-*")
        assert kept.read_bytes()[4096:] == content[4096:]
        async with opened(path) as database:
            assert await names(database) == ["new"]

    asyncio.run(run())
    assert "the store is damaged" in caplog.text


def test_a_file_whose_schema_is_not_text_is_moved_away(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path / "s") as database:
            await put(database, record("a"))
        content = (tmp_path / "s").read_bytes()
        assert b"records_by_server" in content
        (tmp_path / "s").write_bytes(content.replace(b"records_by_server", b"records_\xaey_server", 1))
        async with opened(tmp_path / "s") as database:
            assert (await names(database), database.durable) == ([], True)
        assert list(tmp_path.glob("s-damaged-*"))

    asyncio.run(run())


def test_a_newer_version_and_a_file_of_another_program_are_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path / "s"):
            pass
        with sqlite3.connect(tmp_path / "s") as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        with pytest.raises(ConfigError, match="was written by a newer version of furiosa-llm"):
            await open_database(tmp_path / "s", StoreSettings())
        with sqlite3.connect(tmp_path / "other") as connection:
            connection.execute("CREATE TABLE tracks (title)")
        connection.close()
        with pytest.raises(ConfigError, match="is a database of another program"):
            await open_database(tmp_path / "other", StoreSettings())

    asyncio.run(run())


def test_without_a_writable_directory_records_are_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        for path in (None, tmp_path / "missing" / "s"):
            async with opened(path, StoreSettings(max_memory_bytes=10_000)) as database:
                assert not database.durable
                await put(database, *(record(str(number), bytes(2000)) for number in range(9)))
                assert len(await names(database) or []) == 4
                assert await database.claim_abandoned("thing") == []

        (tmp_path / "lost").mkdir()
        prepared = prepare_store(tmp_path / "lost" / "s", StoreSettings())
        shutil.rmtree(tmp_path / "lost")
        database = await prepared.open()
        assert not database.durable
        await database.close()

    caplog.set_level("INFO", "fllm.store")
    asyncio.run(run())
    # Where there is no directory, the server has said so.
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "WARNING"]
    assert caplog.text.count("stored records are in memory only") == 3


def test_a_full_disk_fails_the_write_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with opened(tmp_path / "s") as database:
            await put(database, record("1"))
            await database._connection.execute("PRAGMA max_page_count = 40")
            writes = [partial(Records.put, record=record(str(n), bytes(n * 40_000))) for n in range(2, 6)]
            results = await asyncio.gather(*map(database.write, writes), return_exceptions=True)
            assert [type(each) for each in results] == [bool, StoreFull, StoreFull, StoreFull]
            assert "the disk of this server is full" in str(results[1])
            assert await names(database) == ["1", "2"]
            await database._connection.execute("PRAGMA max_page_count = 1000")
            await put(database, record("3"))

    asyncio.run(run())
    assert "the store failed" in caplog.text


def test_two_servers_use_one_file(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path / "s") as one, opened(tmp_path / "s") as two:
            pairs = [put(each, record(f"{each.server}{n}")) for n in range(20) for each in (one, two)]
            await asyncio.gather(*pairs)
            assert len(await names(one) or []) == len(await names(two) or []) == 40

    asyncio.run(run())


def test_files_of_killed_servers_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / "s-server-1", tmp_path / "s-server-2"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))

    async def run() -> None:
        async with opened(tmp_path / "s"), opened(tmp_path / "s"):
            assert (old.exists(), new.exists()) == (False, True)
            assert len(list(tmp_path.glob("s-server-*"))) == 3

    asyncio.run(run())


def test_a_server_takes_over_the_records_of_one_that_ended(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path / "s") as one:
            async with opened(tmp_path / "s") as two:
                await put(two, record("a", server=two.server))
                assert await one.claim_abandoned("thing") == []
            [claimed] = await one.claim_abandoned("thing")
            assert (claimed.id, claimed.server) == ("a", one.server)
            assert await one.claim_abandoned("thing") == []

    asyncio.run(run())


KILLED = """
import asyncio, sys
from functools import partial
from pathlib import Path
from fllm_dialects.store import Record, Records, StoreSettings, open_database

async def write(database, worker):
    for number in range(10_000):
        record = Record(f"{worker}-{number}", "ann", "thing", bytes(5000), server=database.server)
        await database.write(partial(Records.put, record=record))
        print(record.id, flush=True)

async def main():
    database = await open_database(Path(sys.argv[1]), StoreSettings())
    await asyncio.gather(*(write(database, worker) for worker in range(8)))

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path / "s"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    acknowledged = {child.stdout.readline().strip() for _ in range(100)}
    child.send_signal(signal.SIGKILL)
    acknowledged |= {line.strip() for line in child.stdout if line.endswith("\n")}
    child.wait()
    child.stdout.close()

    async def run() -> None:
        async with opened(tmp_path / "s") as database:
            claimed = await database.claim_abandoned("thing")
            assert {each.id for each in claimed} >= acknowledged
            assert all(each.body == bytes(5000) for each in claimed)

    asyncio.run(run())
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
