"""Measure whether drafts save time: steps with a drafter are compared with plain ones.

A step of ``n`` decoding sequences that takes as long as ``s`` plain ones, and of which ``a`` drafts are
accepted, gains ``(n + a) / n - s`` steps, which may be negative. An account of these gains, one for each
size class of batches, decides: drafts are proposed while its balance is positive. It begins with a few steps
(`TRIAL`), and each plain step adds a hundredth of one (`ALLOWANCE`). So drafts that lose time cost 1 % of it,
and a constant.
"""

from __future__ import annotations

from msgspec import Struct, field

ALLOWANCE = 0.01
"""Share of the time that drafts may lose."""
TRIAL = 8.0
"""Number of plain steps whose time a trial may lose. After it, the balance has to reach this again."""
MAX_BALANCE = 16.0
"""Number of plain steps that may be lost, at most, after drafts have gained any number."""
MAX_DEBT = 64.0
"""Number of plain steps that a drafter may take at once, to be paid back one in each step.

A draft model computes the prompt of a sequence before it gains anything.
"""
BASELINE_STEPS = 2
"""Number of plain steps that are measured before drafts are."""
REFRESH = 64
"""Number of steps with drafts after which a plain one is measured again."""
CONTEXT_DRIFT = 0.25, 256
"""Share of, and number of tokens, by which the context may change before plain steps are measured again."""
CLIP = 4.0
"""A step counts as at most this many of its kind: now and then, one is interrupted for long."""
SMOOTHING = 1 / 16


class MeanTime(Struct):
    """A mean of the last durations, which single long ones move little."""

    seconds: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> float:
        """Add a duration, and return it as it counts."""
        if self.count:
            seconds = min(seconds, CLIP * self.seconds)
        self.count += 1
        self.seconds += (seconds - self.seconds) * max(SMOOTHING, 1 / self.count)
        return seconds


class Baseline(Struct):
    """The time of a plain step of some number of sequences with some length of context."""

    time: MeanTime
    context: int
    """Number of tokens of all sequences when the measurement began."""

    def fits(self, context: int) -> bool:
        """Return whether it holds for this length of context, and is measured."""
        share, tokens = CONTEXT_DRIFT
        near = abs(context - self.context) <= share * self.context + tokens
        return near and self.time.count >= BASELINE_STEPS


class DraftAccount(Struct):
    """The balance of one size class of batches, in plain steps."""

    balance: float = TRIAL
    debt: float = 0.0
    """Losses that are not in the balance yet."""
    is_open: bool = True
    time: MeanTime = field(default_factory=MeanTime)
    """Of steps with drafts."""

    def add(self, gain: float) -> None:
        """Add a gain or a loss. The account closes at zero, and opens once it can afford a trial."""
        self.debt -= min(gain, 0)
        payment = min(self.debt, 1)
        self.debt -= payment
        self.balance = min(self.balance + max(gain, 0) - payment, MAX_BALANCE)
        if self.is_open:
            self.is_open = self.balance > 0 and self.debt < MAX_DEBT
        else:
            self.is_open = self.balance >= TRIAL


class DraftMeter:
    """The accounts of one engine, and the times of plain steps."""

    def __init__(self) -> None:
        self._accounts: dict[int, DraftAccount] = {}
        self._baselines: dict[int, Baseline] = {}
        self._since_plain = 0
        """Number of steps with drafts since the last without."""
        self.is_off = False
        """Whether drafts lose time, in batches of the last size."""

    def allows(self, rows: int, context: int) -> bool:
        """Return whether the next step of ``rows`` decoding sequences may have drafts.

        ``context``: number of tokens of all of them.
        """
        account = self._account(rows)
        self.is_off = not account.is_open
        baseline = self._baselines.get(rows)
        if baseline is None or not baseline.fits(context) or self._since_plain >= REFRESH:
            return False
        return account.is_open

    def record(
        self, rows: int, context: int, seconds: float, *, drafting: float, drafted: int, accepted: int
    ) -> None:
        """Record a step of which ``drafting`` seconds were spent in the drafter; 0: it was not asked."""
        account = self._account(rows)
        if drafted:
            self._since_plain += 1
            plain = self._baselines[rows].time.seconds
            gain, cost = 1 + accepted / rows, account.time.add(seconds)
        else:
            self._since_plain = 0
            plain = self._measure(rows, context, seconds - drafting)
            gain, cost = ALLOWANCE, drafting
        if plain > 0:
            account.add(gain - cost / plain)

    def record_mixed(self, rows: int, *, drafting: float, accepted: int) -> None:
        """Record a step that has also computed prompts: only the time of the drafter is known.

        An accepted draft saves at least as much as in a plain step.
        """
        if drafting and (baseline := self._baselines.get(rows)) and baseline.time.seconds:
            self._account(rows).add(accepted / rows - drafting / baseline.time.seconds)

    def _account(self, rows: int) -> DraftAccount:
        return self._accounts.setdefault(rows.bit_length(), DraftAccount())

    def _measure(self, rows: int, context: int, seconds: float) -> float:
        """Add the time of a plain step to the baseline, and return its mean."""
        baseline = self._baselines.get(rows)
        if baseline is None or (baseline.time.count >= BASELINE_STEPS and not baseline.fits(context)):
            baseline = self._baselines[rows] = Baseline(MeanTime(), context)
        baseline.time.add(seconds)
        return baseline.time.seconds
