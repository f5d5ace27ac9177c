"""The contract that every drafter must pass."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fllm.config import BackendConfig
from fllm.drafter import DraftedSequence, Drafter, DrafterContext, DraftRequest, DraftResult
from fllm.values import ModelCard, SamplingParams

STEPS = 40
"""Number of steps of each test."""


class DrafterHarness:
    """A drafter, called as the engine calls it.

    The "model" repeats its prompt, with another token now and then.
    """

    def __init__(self, drafter: Drafter, context: DrafterContext) -> None:
        self.drafter = drafter
        self._context = context
        self._random = random.Random(0)

    def start(self, name: str, prompt: Sequence[int], scope: bytes = b"one") -> DraftedSequence:
        """Start a sequence."""
        sequence = DraftedSequence(
            id=name,
            scope=scope,
            token_ids=[*prompt],
            prompt_length=len(prompt),
            sampling=SamplingParams(max_tokens=1000, temperature=0.0),
            seed=0,
        )
        self.drafter.start(sequence)
        return sequence

    def step(self, sequences: Sequence[DraftedSequence], max_tokens: int) -> list[list[int]]:
        """Compute a step with drafts, of which some are right. Return the drafts."""
        before = [[*each.token_ids] for each in sequences]
        batch = [DraftRequest(each, max_tokens) for each in sequences]
        drafts = [[*tokens] for tokens in self.drafter.propose(batch)]
        assert len(drafts) == len(batch), (
            f"propose() returned {len(drafts)} lists of tokens for {len(batch)} sequences"
        )
        assert [[*each.token_ids] for each in sequences] == before, (
            "propose() changed the tokens of a sequence"
        )
        for tokens in drafts:
            assert len(tokens) <= max_tokens, (
                f"propose() returned {len(tokens)} tokens of at most {max_tokens}"
            )
            size = self._context.vocab_size
            outside = [token for token in tokens if not 0 <= token < size]
            assert not outside, f"propose() returned {outside[0]}; tokens are 0 to {size - 1}"
        results = [self._verify(*each) for each in zip(sequences, drafts, strict=True)]
        self.drafter.verified([each for each in results if each.drafted])
        return drafts

    def _verify(self, sequence: DraftedSequence, drafts: Sequence[int]) -> DraftResult:
        tokens = sequence.token_ids
        assert isinstance(tokens, list)
        accepted = 0
        for draft in drafts:
            if draft != self._next(sequence):
                break
            tokens.append(draft)
            accepted += 1
        wrong = self._random.randrange(9) == 0
        tokens.append(self._random.randrange(self._context.vocab_size) if wrong else self._next(sequence))
        return DraftResult(sequence, len(drafts), accepted)

    def _next(self, sequence: DraftedSequence) -> int:
        return sequence.token_ids[len(sequence.token_ids) % sequence.prompt_length]


class DrafterContract:
    """Every drafter passes this. Each test creates one."""

    @classmethod
    def context(cls) -> DrafterContext:
        """Return what the engine provides. Override it if the drafter needs settings, or a tokenizer."""
        card = ModelCard(tokenizer="", max_model_len=4096, runtime={"vocab_size": 64})
        return DrafterContext(
            config=BackendConfig(model="none"), card=card, vocab_size=64, num_speculative_tokens=8
        )

    @classmethod
    def drafter(cls, context: DrafterContext) -> Drafter:
        """Return a new drafter."""
        raise NotImplementedError

    def test_drafts_are_tokens_of_the_model_and_not_too_many(self) -> None:
        with self._harness() as harness:
            sequences = [harness.start(f"s{count}", self._prompt(count)) for count in (1, 2, 30, 200)]
            for step in range(STEPS):
                harness.step(sequences, 1 + step % 8)

    def test_sequences_come_and_go(self) -> None:
        with self._harness() as harness:
            running: list[DraftedSequence] = []
            for step in range(STEPS):
                running.append(harness.start(f"s{step}", self._prompt(5 + step)))
                harness.step(running[step % 3 :], 4)
                if len(running) == 5:
                    for each in (running.pop(0), running.pop(2)):
                        harness.drafter.end(each)
            aborted = harness.start("s0", self._prompt(9))  # an id that was used before
            for each in (*running, aborted):
                harness.drafter.end(each)

    def test_a_sequence_is_drafted_alike_alone_and_in_a_batch(self) -> None:
        found: list[list[list[int]]] = []
        for others in (0, 3):
            with self._harness() as harness:
                first = harness.start("first", self._prompt(20))
                sequences = [
                    first,
                    *(harness.start(f"s{i}", self._prompt(9, i), b"other") for i in range(others)),
                ]
                found.append([harness.step(sequences, 4)[0]])
        assert found[0] == found[1], "the drafts of a sequence depend on others in the batch"

    def test_nothing_is_learned_from_other_scopes(self) -> None:
        found: list[list[list[int]]] = []
        for learns in (False, True):
            with self._harness() as harness:
                if learns:
                    for number in range(3):
                        other = harness.start(f"other{number}", self._prompt(40), b"other")
                        for _ in range(STEPS):
                            harness.step([other], 4)
                        harness.drafter.end(other)
                ours = harness.start("ours", self._prompt(40)[:6])
                batch = [DraftRequest(ours, 8)]
                found.append([[*tokens] for tokens in harness.drafter.propose(batch)])
        assert found[0] == found[1], (
            "the drafts of a sequence contain what was learned from a sequence of another scope, so a client "
            "could find out what another has sent"
        )

    @contextmanager
    def _harness(self) -> Iterator[DrafterHarness]:
        context = type(self).context()
        drafter = type(self).drafter(context)
        assert isinstance(drafter, Drafter), "a drafter needs start, propose, verified, end and close"
        yield DrafterHarness(drafter, context)
        drafter.close()

    def _prompt(self, length: int, seed: int = 0) -> list[int]:
        size = type(self).context().vocab_size
        numbers = random.Random(seed)
        return [numbers.randrange(size) for _ in range(length)]
