"""The measurements of a comparison: a file with one line of JSON for each, to which a run appends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from .loads import Row

OURS = "ours"


class Cell(Struct, frozen=True, kw_only=True):
    """One measurement of one server."""

    model: str
    load: str
    server: str
    round: int
    values: dict[str, float] = {}
    """Values by metric; empty if it failed."""
    error: str | None = None
    seconds: float = 0.0
    """How long it took."""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Return what identifies it in a run."""
        return (self.model, self.load, self.server, self.round)


class Run(Struct, frozen=True, kw_only=True):
    """The first line of the file: what all measurements have in common."""

    date: str
    machine: str
    threads: int
    rounds: int
    avx2: bool
    quick: bool
    """Whether the loads were short, so that no figure means anything."""
    command: str
    files: dict[str, int]
    """Bytes of the file of each model."""
    versions: dict[str, str]
    """Versions and precision of the servers by name."""


class Results:
    """The measurements of a run, in memory and in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.run: Run | None = None
        self.cells: dict[tuple[str, str, str, int], Cell] = {}
        if file.exists():
            first, *lines = file.read_bytes().splitlines()
            self.run = msgspec.json.decode(first, type=Run)
            for line in lines:
                cell = msgspec.json.decode(line, type=Cell)
                self.cells[cell.key] = cell

    def begin(self, run: Run) -> None:
        """Begin or continue a run. Measurements stay, except those that failed: they are made again."""
        self.cells = {key: cell for key, cell in self.cells.items() if not cell.error}
        self.describe(run)

    def describe(self, run: Run) -> None:
        """Write another first line."""
        self.run = run
        lines = [msgspec.json.encode(run), *map(msgspec.json.encode, self.cells.values()), b""]
        self._file.write_bytes(b"\n".join(lines))

    def add(self, cell: Cell) -> None:
        """Append a measurement."""
        self.cells[cell.key] = cell
        with self._file.open("ab") as file:
            file.write(msgspec.json.encode(cell) + b"\n")

    def of(self, model: str, load: str, server: str) -> list[Cell]:
        """Return the measurements of a server under a load, in the order of their rounds."""
        found = [c for c in self.cells.values() if (c.model, c.load, c.server) == (model, load, server)]
        return sorted(found, key=lambda cell: cell.round)

    def values(self, model: str, load: str, server: str, metric: str) -> list[float]:
        """Return the values of a metric."""
        cells = self.of(model, load, server)
        return [cell.values[metric] for cell in cells if metric in cell.values]

    def servers(self, model: str) -> list[str]:
        """Return the names of the servers that were measured with a model, ours first."""
        found = dict.fromkeys(cell.server for cell in self.cells.values() if cell.model == model)
        return sorted(found, key=lambda name: name != OURS)

    def models(self) -> list[str]:
        """Return the names of the models."""
        return [*dict.fromkeys(cell.model for cell in self.cells.values())]


class Kept:
    """Values that were measured before, in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._values: dict[str, dict[str, float]] = (
            msgspec.json.decode(file.read_bytes()) if file.exists() else {}
        )

    def get(self, key: str) -> dict[str, float] | None:
        """Return the values with a key, if there are any."""
        return self._values.get(key)

    def put(self, key: str, values: dict[str, float]) -> None:
        """Keep values."""
        self._values[key] = values
        self._file.write_bytes(msgspec.json.format(msgspec.json.encode(self._values)))


class Standing(Struct, frozen=True, kw_only=True):
    """Ours and the best peer in one row of the table."""

    ours: float | None
    peer: float | None
    peer_name: str = ""

    def ratio(self, row: Row) -> float | None:
        """Return how many times better ours is."""
        if not self.ours or not self.peer:
            return None
        return self.ours / self.peer if row.better == "higher" else self.peer / self.ours


def standing(results: Results, model: str, row: Row, counts: Callable[[str], bool]) -> Standing:
    """Return the medians of ours and of the best of those peers that count."""
    medians = {
        name: median(values)
        for name in results.servers(model)
        if (values := results.values(model, row.load, name, row.metric))
    }
    ours = medians.pop(OURS, None)
    peers = {name: value for name, value in medians.items() if counts(name)}
    if not peers:
        return Standing(ours=ours, peer=None)
    best = (max if row.better == "higher" else min)(peers, key=peers.__getitem__)
    return Standing(ours=ours, peer=peers[best], peer_name=best)
