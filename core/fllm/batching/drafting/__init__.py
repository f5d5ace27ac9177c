"""Speculative decoding: ask a drafter for drafts, as long as they save time."""

from fllm.batching.drafting.draft_room import DraftRoom
from fllm.batching.drafting.drafting import Drafting, Verified, open_drafting

__all__ = ["DraftRoom", "Drafting", "Verified", "open_drafting"]
