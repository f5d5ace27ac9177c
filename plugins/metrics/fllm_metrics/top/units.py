"""Figures as text, each short enough for its column."""

from __future__ import annotations


def number(value: float) -> str:
    """Whole from 100 on, and two digits of what is less."""
    if value >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def seconds(value: float) -> str:
    """``4.1 ms``, ``350 ms``, ``2.5 s``, ``75 s``."""
    if value < 0.9995:
        return f"{value * 1000:.2g} ms" if value < 0.0995 else f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"


def percent(share: float | None) -> str:
    """A dash for nothing."""
    return "-" if share is None else f"{share:.0%}"


def bytes_(value: float) -> str:
    """In MB, or GB from a thousand on."""
    return f"{value / 1e6:.0f} MB" if value < 1e9 else f"{value / 1e9:.1f} GB"


def span(value: float) -> str:
    """The two largest units: ``3 d 4 h``, ``5 min 10 s``."""
    rest = max(0, round(value))
    days, rest = divmod(rest, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((index for index, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])
