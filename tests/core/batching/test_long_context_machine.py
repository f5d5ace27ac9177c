"""Sequences that are computed again when they become long, with late masks, drafts and preemptions."""

from __future__ import annotations

from hypothesis import settings

from .test_late_masks import LateMaskMachine
from .test_scheduler_machine import SchedulerMachine


class LongContextMachine(LateMaskMachine):
    long_context_start = 6


class LongContextWithDrafts(SchedulerMachine):
    long_context_start = 9


LongContextMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestLongContext = LongContextMachine.TestCase
LongContextWithDrafts.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestLongContextWithDrafts = LongContextWithDrafts.TestCase
