"""Drafting that does not measure, so that tests do not depend on how long steps take."""

from __future__ import annotations

from typing import Any

from support.fake_runner import VOCABULARY

from fllm.batching.drafting import Drafting
from fllm.batching.drafting.draft_account import DraftMeter
from fllm.drafter import Drafter


class AlwaysOn(DraftMeter):
    """Measures nothing."""

    def allows(self, rows: int, context: int) -> bool:
        return True

    def record_mixed(self, rows: int, *, drafting: float, accepted: int) -> None:
        pass

    def record(self, *args: Any, **measured: Any) -> None:
        pass


def always_drafting(drafter: Drafter, **settings: Any) -> Drafting:
    return Drafting(
        drafter, "fake", **{"max_tokens": 99, "vocab_size": VOCABULARY, "meter": AlwaysOn(), **settings}
    )
