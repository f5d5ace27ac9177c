"""A durable, bounded store of records in one SQLite file: isolated by owner, encrypted by option.

A dialect opens one file of its own and keeps records of several kinds in it::

    prepared = prepare_store(data_dir / "responses.sqlite3", StoreSettings(ttl=..., max_bytes=...))
    database = await prepared.open()
    await database.write(lambda records: records.put(Record("resp_1", owner, "response", body)))
    record = await database.read(lambda records: records.get("response", "resp_1", owner))

`Database.write` returns once the records survive a crash of the machine; writes that wait at the same time
share one commit. The function may call several methods of `Records`: all of it is stored, or nothing. It can
be called twice, so it must have no other effects. `Database.read` is for functions that only read.

`Records` has `get`, `put`, `put_all`, `delete` and `touch`; `owned` lists those of an owner, `append` and
`children` are for an ordered list below a record. Lists have pages. A record expires after a time without
use, unless its field ``server`` says that a server works on it. If that server dies, another takes its
records over with `Database.claim_abandoned`. Errors of a running server are HTTP errors (`StoreFull` is 507,
`StoreUnavailable` 503); those of `prepare_store`, which the hook of a plugin can call, are `ConfigError`s.
"""

from fllm_dialects.store.database import Database
from fllm_dialects.store.errors import StoreError, StoreFull, StoreUnavailable
from fllm_dialects.store.opening import PreparedStore, open_database, prepare_store
from fllm_dialects.store.records import ROWS_AT_ONCE, Page, Record, Records
from fllm_dialects.store.settings import StoreSettings

__all__ = [
    "ROWS_AT_ONCE",
    "Database",
    "Page",
    "PreparedStore",
    "Record",
    "Records",
    "StoreError",
    "StoreFull",
    "StoreSettings",
    "StoreUnavailable",
    "open_database",
    "prepare_store",
]
