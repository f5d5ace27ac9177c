"""The table of a comparison in Markdown: medians and ranges, ratios, bars, and whether they are met."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import median

from .loads import KL, ROWS, Row, Scale
from .results import OURS, Results, Standing, standing

MOST_KL = 3.0
"""A peer that rounds more than this times the KL divergence of the one that ours may not exceed is not the
best peer: nobody wins by rounding."""


def report(results: Results, scales: dict[str, Scale]) -> Iterator[str]:
    """Yield the lines of the whole report."""
    run = results.run
    assert run is not None
    yield f"{run.date}; {run.machine}; {run.threads} threads{'; AVX2 alone' if run.avx2 else ''}"
    yield ""
    yield f"`{run.command}`; medians (and ranges) of {run.rounds} rounds, all servers in turn."
    if run.quick:
        yield "The loads were short: the figures mean nothing."
    yield "A single value is that of one round. A peer that was far behind was not measured again."
    yield f"‡: its KL divergence is over {MOST_KL:g} times what ours may have, so it can't be the best peer."
    for model in results.models():
        yield ""
        yield f"### {model}, {run.files.get(model, 0) / 1e6:.0f} MB"
        yield ""
        yield from _table(results, model, scales[model])
        yield ""
        yield from _notes(results, model)
    yield ""
    yield from (f"- {name}: {version}" for name, version in run.versions.items())


def _table(results: Results, model: str, scale: Scale) -> Iterator[str]:
    peers = [name for name in results.servers(model) if name != OURS]
    reference = KL.not_worse_than[scale]
    counts = partial(_counts, results, model, reference)
    titles = [f"{name}{'' if counts(name) else ' ‡'}" for name in peers]
    yield f"| | ours | {' | '.join([*titles, 'ours / best peer', 'bar', ''])} |"
    yield "|---" * (len(peers) + 5) + "|"
    for row in ROWS:
        cells = [_cell(results, model, row, name) for name in (OURS, *peers)]
        if any(cells):
            stands = standing(results, model, row, counts)
            ratio, bar, verdict = _judge(results, model, row, scale, stands)
            yield f"| {' | '.join([row.title, *cells, ratio, bar, verdict])} |"


def _counts(results: Results, model: str, reference: str, name: str) -> bool:
    """Return whether a peer can be the best: one whose divergence is unknown can."""
    own, limit = (results.values(model, KL.load, each, KL.metric) for each in (name, reference))
    return not own or not limit or own[0] <= MOST_KL * limit[0]


def _cell(results: Results, model: str, row: Row, server: str) -> str:
    values = [value * row.scale for value in results.values(model, row.load, server, row.metric)]
    if not values:
        return "failed" if any(cell.error for cell in results.of(model, row.load, server)) else ""
    middle = _number(median(values))
    if len(values) == 1:
        return middle
    rounds = f"; {len(values)} rounds" if results.run and len(values) < results.run.rounds else ""
    return f"{middle} ({_number(min(values))} to {_number(max(values))}{rounds})"


def _judge(results: Results, model: str, row: Row, scale: Scale, stands: Standing) -> tuple[str, str, str]:
    """Return the ratio, the bar and whether it is met, as text."""
    ratio = stands.ratio(row)
    shown = f"{ratio:.2f}, {stands.peer_name}" if ratio is not None else ""
    if bar := row.bars.get(scale):
        return shown, f"{bar:g}", "" if ratio is None else _verdict(ratio >= bar)
    if (reference := row.not_worse_than.get(scale)) is not None:
        theirs = results.values(model, row.load, reference, row.metric)
        if not theirs or stands.ours is None:
            return "", f"{reference}'s", ""
        return f"{theirs[0] / stands.ours:.2f}", f"{reference}'s", _verdict(stands.ours <= theirs[0])
    if limit := row.limits.get(scale):
        sign = "at least" if row.better == "higher" else "at most"
        if stands.ours is None:
            return "", f"{sign} {limit:g}", ""
        met = stands.ours >= limit if row.better == "higher" else stands.ours <= limit
        return "", f"{sign} {limit:g}", _verdict(met)
    return "", "", ""


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def _notes(results: Results, model: str) -> Iterator[str]:
    """Yield what failed, and why."""
    seen = {
        (cell.server, cell.load, cell.error): None
        for cell in results.cells.values()
        if cell.model == model and cell.error
    }
    yield from (f"- {server}, {load}: {error}" for server, load, error in seen)


def _number(value: float) -> str:
    """Return a number with three significant digits, or all digits before the decimal point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.5f}"
