"""Tables of a store, and the steps from an older version of the file to this one."""

from __future__ import annotations

APPLICATION_ID = 0x464C4C4D
"""``FLLM``, in the header of the file (https://sqlite.org/pragma.html#pragma_application_id)."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
        """
        CREATE TABLE records (
            owner TEXT NOT NULL,
            parent TEXT NOT NULL,       -- id of the record that it belongs to, or ''
            id TEXT NOT NULL,
            kind TEXT NOT NULL,
            position INTEGER NOT NULL,  -- among the children of its parent
            created REAL NOT NULL,      -- Unix time, in seconds
            expires REAL,               -- Unix time; NULL: not as long as it is in use, or as its parent
            state TEXT NOT NULL,
            server TEXT NOT NULL,       -- the server that works on it, or ''
            size INTEGER NOT NULL,
            body BLOB NOT NULL,
            PRIMARY KEY (owner, parent, id)
        )
        """,
        "CREATE INDEX records_by_position ON records (owner, parent, position, id)",
        "CREATE INDEX records_by_kind ON records (owner, kind, created, id) WHERE parent = ''",
        "CREATE INDEX records_by_id ON records (owner, id) WHERE parent != ''",
        "CREATE INDEX records_by_expiry ON records (expires) WHERE expires IS NOT NULL",
        "CREATE INDEX records_by_age ON records (owner, expires) WHERE expires IS NOT NULL",
        "CREATE INDEX records_by_server ON records (server) WHERE server != ''",
        "CREATE TABLE usage (owner TEXT PRIMARY KEY, bytes INTEGER NOT NULL)",
        """
        CREATE TRIGGER count_inserted AFTER INSERT ON records BEGIN
            INSERT INTO usage VALUES (NEW.owner, NEW.size) ON CONFLICT DO UPDATE SET bytes = bytes + NEW.size;
        END
        """,
        """
        CREATE TRIGGER count_updated AFTER UPDATE OF size ON records BEGIN
            UPDATE usage SET bytes = bytes + NEW.size - OLD.size WHERE owner = NEW.owner;
        END
        """,
        """
        CREATE TRIGGER count_deleted AFTER DELETE ON records BEGIN
            UPDATE usage SET bytes = bytes - OLD.size WHERE owner = OLD.owner;
            DELETE FROM usage WHERE owner = OLD.owner AND bytes <= 0;
        END
        """,
    ),
)
"""The statements of each version. ``user_version`` is the number of those that were executed."""
