"""Format numbers as short texts for columns."""

from __future__ import annotations


def number(value: float) -> str:
    """Format with two significant digits below 100, without decimals from 100 on."""
    if value >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def seconds(value: float) -> str:
    """Format as ``4.1 ms``, ``350 ms``, ``2.5 s`` or ``75 s``."""
    if value < 0.9995:
        return f"{value * 1000:.2g} ms" if value < 0.0995 else f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"


def percent(share: float | None) -> str:
    """Format as a percentage; a dash for None."""
    return "-" if share is None else f"{share:.0%}"


def bytes_(value: float) -> str:
    """Format in MB, or in GB from 1 GB on."""
    return f"{value / 1e6:.0f} MB" if value < 1e9 else f"{value / 1e9:.1f} GB"


def duration(value: float) -> str:
    """Format with the two largest units, as in ``3 d 4 h`` or ``5 min 10 s``."""
    rest = max(0, round(value))
    days, rest = divmod(rest, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((index for index, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])
