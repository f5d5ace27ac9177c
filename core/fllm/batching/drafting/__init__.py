"""Speculative decoding: ask a drafter for drafts, as long as they save time."""

from fllm.batching.drafting.drafting import Drafting, Verified, open_drafting

__all__ = ["Drafting", "Verified", "open_drafting"]
