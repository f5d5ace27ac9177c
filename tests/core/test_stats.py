from __future__ import annotations

from fllm.stats import add_stats
from fllm.values import CacheTierStats, EngineStats


def test_engines_add_up_but_share_a_disk() -> None:
    tier = CacheTierStats(hits=3, used_bytes=50, limit_bytes=100)
    engine = EngineStats(running=2, cache_tiers={"ram": tier, "disk": tier})
    total = add_stats(engine, engine, EngineStats(running=1))
    assert total.running == 5
    assert total.cache_tiers["ram"] == CacheTierStats(hits=6, used_bytes=100, limit_bytes=200)
    assert total.cache_tiers["disk"] == CacheTierStats(hits=6, used_bytes=50, limit_bytes=100)
