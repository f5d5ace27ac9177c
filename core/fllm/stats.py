"""Sums of the statistics of several engines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from msgspec import Struct

from fllm.values import CacheTierStats, EngineStats


def add_stats(*parts: EngineStats) -> EngineStats:
    """Return the sums of all numbers."""
    tiers = {
        name: CacheTierStats(**_sums([part.cache_tiers[name] for part in parts if name in part.cache_tiers]))
        for name in {name for part in parts for name in part.cache_tiers}
    }
    return EngineStats(**_sums(parts, omitted=("cache_tiers", "replicas", "models")), cache_tiers=tiers)


def _sums(parts: Sequence[Struct], omitted: Collection[str] = ()) -> dict[str, Any]:
    names = [name for name in parts[0].__struct_fields__ if name not in omitted] if parts else []
    return {name: sum(getattr(part, name) for part in parts) for name in names}
