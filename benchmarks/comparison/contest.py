"""Measure all servers of a model under all loads, in turn."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import peers
from msgspec import Struct

from . import machine
from .loads import LONG, ROWS, Load
from .models import Model
from .results import OURS, Cell, Results
from .servers import FAILURES, Engine, Server, Servers, watched

PROGRAM = Path(sys.executable).parent / "furiosa-llm"
CONSTRAINED = Path(__file__).parents[1] / "constrained.py"
SLOWEST = 3.0
"""A peer that takes this many times as long as ours is stopped."""
LEAST_SECONDS = 40.0
"""Time that every peer gets."""
MOST_STOPS = 2
"""A peer that was stopped this many times gets no other loads."""
HOPELESS = 0.6
"""A peer with less than this share of the best peer's speed can't become the best: no more rounds."""
GUESS = {"prefill": 8.0, "long-context": 25.0, "agents": 45.0, "memory": 15.0, "constrained": 40.0}
"""Seconds that a load takes, before it was measured."""


class Task(Struct, frozen=True):
    """A measurement to make."""

    round: int
    load: Load
    server: str


class Contest:
    """The comparison of one model."""

    def __init__(
        self, model: Model, engines: Sequence[Engine], results: Results, *, file: Path, threads: int
    ) -> None:
        self._model = model.name
        self._names = [engine.name for engine in engines]
        self._servers = Servers(engines)
        self._results = results
        self._file = file
        self._large = model.scale == "large"
        self._threads = threads
        self._bandwidth = 0.0
        self._broken: set[str] = set()
        self._stopped: Counter[str] = Counter()

    def run(self, loads: Sequence[Load], once: Sequence[str], rounds: int, deadline: float) -> None:
        """Measure all, and print each measurement and the time that is left. End all servers."""
        tasks = [*self._tasks(loads, rounds), *self._last(loads, once)]
        try:
            for index, task in enumerate(tasks):
                if time.monotonic() > deadline:
                    print(f"{self._model}: no time is left for {len(tasks) - index} measurements", flush=True)
                    break
                if self._wanted(task):
                    cell = self._measure(task)
                    self._results.add(cell)
                    print(self._line(cell, tasks[index + 1 :]), flush=True)
        finally:
            self._servers.end()

    def _tasks(self, loads: Sequence[Load], rounds: int) -> Iterator[Task]:
        """Yield the measurements of all rounds. Ours is the first in the first round: it sets the limits."""
        short, long = ([load for load in loads if (load.name in LONG) == each] for each in (False, True))
        for some in (short, long):
            for index in range(rounds):
                first = index % len(self._names)
                names = self._names[first:] + self._names[:first]
                yield from (Task(index, load, name) for load in some for name in names)

    def _last(self, loads: Sequence[Load], once: Sequence[str]) -> Iterator[Task]:
        widest = next((load for load in reversed(loads) if load.name.startswith("throughput")), None)
        if "memory" in once:
            arguments = widest.arguments if widest else ("throughput", "--concurrency", "16")
            yield from (Task(0, Load("memory", arguments), name) for name in self._names)
        if "constrained" in once and not self._large:
            yield Task(0, Load("constrained", ()), OURS)

    def _wanted(self, task: Task) -> bool:
        """Return whether a measurement is missing, and can change the table."""
        if task.server in self._broken:
            return False
        if (self._model, task.load.name, task.server, task.round) in self._results.cells:
            return False
        return task.server == OURS or not self._is_hopeless(task)

    def _is_hopeless(self, task: Task) -> bool:
        """Return whether a peer is far behind the best one: in an earlier round, or in all shorter loads."""
        cells = self._results.of(self._model, task.load.name, task.server)
        if any(cell.error for cell in cells if cell.round < task.round):
            return True
        if task.load.name not in LONG or cells:
            return self._is_far_behind(task.load.name, task.server)
        short = [row.load for row in ROWS if row.bars and row.load not in LONG]
        measured = [load for load in short if self._results.of(self._model, load, task.server)]
        return bool(measured) and all(self._is_far_behind(load, task.server) for load in measured)

    def _is_far_behind(self, load: str, server: str) -> bool:
        """Return whether a peer is hopeless in all rows of a load. One that failed there is."""
        if any(cell.error for cell in self._results.of(self._model, load, server)):
            return True
        shares = []
        for row in (row for row in ROWS if row.load == load and row.bars):
            speeds = {
                name: median(values) if row.better == "higher" else 1 / median(values)
                for name in self._names
                if name != OURS and (values := self._results.values(self._model, load, name, row.metric))
            }
            if server not in speeds:
                return False
            shares.append(speeds[server] / max(speeds.values()))
        return bool(shares) and max(shares) < HOPELESS

    def _measure(self, task: Task) -> Cell:
        values: dict[str, float] = {}
        error = None
        begun = time.monotonic()
        try:
            if self._large and task.load.name == "throughput-1" and task.server == self._names[0]:
                self._bandwidth = machine.bandwidth(self._threads)
            with self._servers.awake(task.server) as server:
                begun = time.monotonic()
                values = self._values(task, server)
        except Failed as failure:
            error = str(failure)
        except FAILURES as failure:
            error = str(failure) or type(failure).__name__
            self._broken.add(task.server)
        return Cell(
            model=self._model,
            load=task.load.name,
            server=task.server,
            round=task.round,
            values=values,
            error=error,
            seconds=time.monotonic() - begun,
        )

    def _values(self, task: Task, server: Server) -> dict[str, float]:
        """Return what a server that is awake has under a load. Raise `Failed`."""
        match task.load.name:
            case "constrained":
                return constrained(server.port)
            case "memory":
                with watched(server):
                    self._bench(task, server)
                size = self._file.stat().st_size
                return {
                    "loading_to_file": server.loading_bytes / size,
                    "serving_to_file": server.serving_bytes / size,
                    "loading_bytes": server.loading_bytes,
                    "serving_bytes": server.serving_bytes,
                }
            case name:
                values = self._bench(task, server)
                if name == "throughput-1" and self._bandwidth and "tpot_p50_ms" in values:
                    read = self._file.stat().st_size * 1000 / values["tpot_p50_ms"]
                    values |= {"bandwidth_share": read / self._bandwidth, "bandwidth": self._bandwidth}
                return values

    def _bench(self, task: Task, server: Server) -> dict[str, float]:
        seed = f"{self._model} {task.load.name} {task.round}"
        try:
            return bench(task.load.arguments, task.server, server.port, seed, self._limit(task))
        except subprocess.TimeoutExpired as expired:
            server.end()
            self._stopped[task.server] += 1
            if self._stopped[task.server] == MOST_STOPS:
                self._broken.add(task.server)
            raise Failed(
                f"stopped after {expired.timeout:.0f} s; ours took a third of that, or less"
            ) from None

    def _limit(self, task: Task) -> float | None:
        if task.server == OURS:
            return None
        ours = self._results.of(self._model, task.load.name, OURS)
        seconds = max((cell.seconds for cell in ours if not cell.error), default=None)
        return None if seconds is None else max(LEAST_SECONDS, SLOWEST * seconds)

    def _line(self, cell: Cell, later: Sequence[Task]) -> str:
        shown = cell.error or ", ".join(
            f"{row.title}: {cell.values[row.metric] * row.scale:.4g}"
            for row in ROWS
            if row.load == cell.load and row.metric in cell.values
        )
        left = sum(self._seconds(task) for task in later if self._wanted(task))
        what = f"{self._model}, round {cell.round + 1}, {cell.load}, {cell.server}"
        times = f"{cell.seconds:.0f} s; about {left / 60:.0f} min left"
        return f"[{time.strftime('%H:%M:%S')}] {what}: {shown} ({times})"

    def _seconds(self, task: Task) -> float:
        """Return how long a measurement takes, in seconds: as long as the last one of the same kind."""
        own = self._results.of(self._model, task.load.name, task.server)
        if own:
            return own[-1].seconds
        ours = self._results.of(self._model, task.load.name, OURS)
        return 2 * ours[-1].seconds if ours else GUESS.get(task.load.name, 6.0)


class Failed(Exception):
    """A measurement that gave no values; the message is for the table."""


def bench(arguments: Sequence[str], name: str, port: int, seed: str, limit: float | None) -> dict[str, float]:
    """Return the medians of ``furiosa-llm bench``. Raise `Failed`, or `TimeoutExpired` after the limit."""
    command = [PROGRAM, "bench", *arguments, f"{name}=http://127.0.0.1:{port}"]
    done = subprocess.run(
        [*command, "--rounds", "1", "--seed", seed, "--json"], capture_output=True, text=True, timeout=limit
    )
    try:
        [result] = json.loads(done.stdout)["results"]
    except ValueError:
        raise Failed(done.stderr.strip().rpartition("error: ")[2] or "no result") from None
    failures: dict[str, int] = result["failures"]
    if failures:
        raise Failed(next(iter(failures)))
    if result["short_answers"]:
        raise Failed(f"{result['short_answers']} of {result['answers']} answers ended early")
    values: dict[str, float] = result["medians"]
    return values


def constrained(port: int) -> dict[str, float]:
    """Return the tokens/s of constrained and unconstrained streams, and their ratio. Raise `Failed`."""
    command = [sys.executable, CONSTRAINED, f"http://127.0.0.1:{port}", "--model", peers.MODEL]
    done = subprocess.run([*command, "--rounds", "3", "--json"], capture_output=True, text=True)
    if done.returncode:
        raise Failed(done.stderr.strip().splitlines()[-1])
    measured: dict[str, list[Any]] = json.loads(done.stdout)
    return {kind: float(median(values)) for kind, values in measured.items()}
