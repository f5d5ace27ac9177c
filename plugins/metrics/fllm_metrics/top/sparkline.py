"""Draw sparklines and gauges with characters."""

from __future__ import annotations

from collections.abc import Iterable

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Iterable[float | None]) -> str:
    """Return one bar per value, scaled to the highest; a space for None."""
    values = list(values)
    highest = max((value for value in values if value is not None), default=0.0)
    return "".join(" " if value is None else _bar(value, highest) for value in values)


def _bar(value: float, highest: float) -> str:
    if highest <= 0:
        return BARS[0]
    return BARS[min(int(value / highest * len(BARS)), len(BARS) - 1)]


def gauge(share: float, width: int) -> str:
    """Return a horizontal bar that is full at 1."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)
