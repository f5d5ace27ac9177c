"""The built-in drafters that need no model pass the contract of drafters."""

from __future__ import annotations

from fllm import Drafter, DrafterContext
from fllm.testing import DrafterContract
from fllm_backends.drafters.ngram import NgramDrafter
from fllm_backends.drafters.suffix import SuffixDrafter


class TestNgram(DrafterContract):
    @classmethod
    def drafter(cls, context: DrafterContext) -> Drafter:
        return NgramDrafter(context)


class TestSuffix(DrafterContract):
    @classmethod
    def drafter(cls, context: DrafterContext) -> Drafter:
        return SuffixDrafter(context)
