"""Sums of the statistics of several engines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from msgspec import Struct

from fllm.values import CacheTierStats, EngineStats


def add_stats(*parts: EngineStats) -> EngineStats:
    """Return the sums of all numbers. The engines share a disk: its size is that of each."""
    tiers: dict[str, CacheTierStats] = {}
    for name in {name for part in parts for name in part.cache_tiers}:
        tier = [part.cache_tiers[name] for part in parts if name in part.cache_tiers]
        sums = _sums(tier)
        if name == "disk":
            sums["used_bytes"] = max(each.used_bytes for each in tier)
            sums["limit_bytes"] = max(each.limit_bytes for each in tier)
        tiers[name] = CacheTierStats(**sums)
    return EngineStats(**_sums(parts, omitted=("cache_tiers", "replicas", "models")), cache_tiers=tiers)


def _sums(parts: Sequence[Struct], omitted: Collection[str] = ()) -> dict[str, Any]:
    names = [name for name in parts[0].__struct_fields__ if name not in omitted] if parts else []
    return {name: sum(getattr(part, name) for part in parts) for name in names}
