"""The tables of docs/reliability.md: each test declares its fault, what must hold, and what happened."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import pytest

AREAS = (
    "Engine",
    "Replicas",
    "Plugins",
    "Grammars",
    "Clients",
    "Batches",
    "Network",
    "Connections",
    "Store",
    "Shutdown",
    "Clock",
    "Start",
)
"""Order of the sections; other areas follow."""

INTRODUCTION = """# What happens when something breaks

Find the fault in the tables below: what the server must do, and what it did.

- [Engine](#engine)
- [Replicas](#replicas)
- [Plugins](#plugins)
- [Grammars](#grammars)
- [Clients](#clients): what one client does to others
- [Batches](#batches)
- [Network](#network)
- [Connections](#connections)
- [Store](#store): responses and conversations on disk
- [Shutdown](#shutdown)
- [Clock](#clock)
- [Start](#start)

`make faults` writes this page. It causes each fault in a running server and records what happened. If
the test of a row fails, the row says FAILED, and `make faults` fails. The tests are in `tests/faults`,
and `make test` runs them too. To repeat one, run `scripts/faults -k NAME`, which writes a page with its
rows only.

This run: {machine}; {minutes:.1f} minutes. The times are those of this run, not guarantees.
"""


@dataclass(frozen=True)
class Row:
    """One fault: a row of a table."""

    area: str
    fault: str
    must: str
    happened: str


class Seen:
    """The fixture ``seen``: a test calls it, at least once, with what happened."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def __call__(self, what: str) -> None:
        self.sentences.append(what)

    def __str__(self) -> str:
        return "; ".join(self.sentences)


def fault(area: str, what: str, *, must: str) -> pytest.MarkDecorator:
    """Mark a test as a row of the table: in which area, what breaks, and what must hold."""
    return pytest.mark.fault(area, what, must)


def page(rows: Iterable[Row], *, minutes: float) -> str:
    """Return the text of ``docs/reliability.md``."""
    ordered = sorted(rows, key=lambda row: _place(row.area))
    sections = [_section(area, [*group]) for area, group in groupby(ordered, key=lambda row: row.area)]
    head = INTRODUCTION.format(machine=machine(), minutes=minutes)
    return "\n".join([head, *sections])


def machine() -> str:
    """Describe this machine, without its name."""
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores, python = len(os.sched_getaffinity(0)), platform.python_version()
    return f"{cores} cores ({platform.machine()}), {gigabytes:.0f} GB, {platform.system()}, Python {python}"


def _place(area: str) -> tuple[int, str]:
    return (AREAS.index(area) if area in AREAS else len(AREAS), area)


def _section(area: str, rows: list[Row]) -> str:
    lines = [f"| {_cell(row.fault)} | {_cell(row.must)} | {_cell(row.happened)} |" for row in rows]
    return "\n".join(
        [f"## {area}", "", "| fault | what must hold | what happened |", "|---|---|---|", *lines, ""]
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
