"""The contract of drafters accepts a drafter that works, and finds each fault."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from fllm import DraftedSequence, Drafter, DrafterContext, DraftRequest, DraftResult
from fllm.testing import DrafterContract, run_contract


class Last:
    """Proposes the last token again."""

    def __init__(self) -> None:
        self.sequences: dict[str, DraftedSequence] = {}

    def start(self, sequence: DraftedSequence) -> None:
        assert sequence.id not in self.sequences, "it was started before"
        self.sequences[sequence.id] = sequence

    def propose(self, batch: Sequence[DraftRequest]) -> list[list[int]]:
        return [[each.sequence.token_ids[-1]] * each.max_tokens for each in batch]

    def verified(self, results: Sequence[DraftResult]) -> None:
        for each in results:
            assert 0 <= each.accepted <= each.drafted
            assert each.sequence is self.sequences[each.sequence.id]

    def end(self, sequence: DraftedSequence) -> None:
        del self.sequences[sequence.id]

    def close(self) -> None:
        pass


class TooMany(Last):
    def propose(self, batch: Sequence[DraftRequest]) -> list[list[int]]:
        return [[1] * 9 for _ in batch]


class Unknown(Last):
    def propose(self, batch: Sequence[DraftRequest]) -> list[list[int]]:
        return [[64] for _ in batch]


class Forgetful(Last):
    def propose(self, batch: Sequence[DraftRequest]) -> list[list[int]]:
        return super().propose(batch)[1:]


class Writing(Last):
    def propose(self, batch: Sequence[DraftRequest]) -> list[list[int]]:
        tokens: Any = batch[0].sequence.token_ids
        tokens.append(1)
        return super().propose(batch)


class Mixing(Last):
    def propose(self, batch: Sequence[DraftRequest]) -> list[list[int]]:
        return [[len(batch)] for _ in batch]


class Leaking(Last):
    """Proposes what followed the first token of any sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.followed: dict[int, int] = {}

    def propose(self, batch: Sequence[DraftRequest]) -> list[list[int]]:
        found = [[*filter(None, [self.followed.get(each.sequence.token_ids[-1])])] for each in batch]
        for each in batch:
            tokens = each.sequence.token_ids
            self.followed |= dict(pairwise(tokens))
        return found


class Keeping(Last):
    def end(self, sequence: DraftedSequence) -> None:
        pass


def failures(kind: type[Last]) -> dict[str, str]:
    class Checked(DrafterContract):
        @classmethod
        def drafter(cls, context: DrafterContext) -> Drafter:
            return kind()

    return {each.test: str(each.error) for each in run_contract(Checked) if each.error is not None}


def test_a_drafter_that_works_passes() -> None:
    assert failures(Last) == {}


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        (TooMany, r"propose\(\) returned 9 tokens of at most 1"),
        (Unknown, r"propose\(\) returned 64; tokens are 0 to 63"),
        (Forgetful, r"propose\(\) returned 3 lists of tokens for 4 sequences"),
        (Writing, r"propose\(\) changed"),
        (Mixing, "the drafts of a sequence depend on others in the batch"),
        (Leaking, "a client could find out what another has sent"),
        (Keeping, "it was started before"),
    ],
)
def test_each_fault_is_found(kind: type[Last], complaint: str) -> None:
    assert re.search(complaint, "\n".join(failures(kind).values()))
