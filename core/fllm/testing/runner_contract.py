"""The contract that every model runner must pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, cycle, islice
from typing import Any, ClassVar

from fllm.batching.runner import ModelRunner, Sampled
from fllm.testing.runner_harness import MIN_BLOCKS, RunnerHarness, RunnerSequence
from fllm.values import TokenLogprob

MAX_SUMMED_VOCABULARY = 512
"""Largest vocabulary for which the sum of all probabilities is checked."""
FORCE = 1000.0
"""Logit bias or penalty that decides which token is sampled."""
SAMPLING_CASES: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_p": 0.8, "frequency_penalty": 0.5},
    {"repetition_penalty": 1.2},
    {"temperature": 1.0, "top_k": 5, "min_tokens": 5, "logit_bias": {1: 2.0}},
    {"temperature": 1.0, "min_p": 0.1, "presence_penalty": 0.5},
    {},
)
"""Sampling parameters of the sequences of a mixed batch."""


class ModelRunnerContract:
    """Every `ModelRunner` passes this. The runner is loaded once and shared by the tests."""

    prompts: ClassVar[Sequence[Sequence[int]]]
    """Token ids of at least two prompts of a few tokens each. The tests repeat them for longer prompts."""
    block_size: ClassVar[int] = 16
    """Number of tokens in a KV block."""
    tolerance: ClassVar[float] = 1e-3
    """Allowed difference of a log-probability between batches. A tie within it may be decided either way."""
    _harness: ClassVar[RunnerHarness | None] = None

    @classmethod
    def runner(cls) -> ModelRunner:
        """Return a new runner that is not loaded, with memory for at least `MIN_BLOCKS` blocks."""
        raise NotImplementedError

    @classmethod
    def harness(cls) -> RunnerHarness:
        """Return the harness of the loaded runner."""
        if cls._harness is None:
            cls._harness = RunnerHarness(cls.runner(), cls.block_size)
        return cls._harness

    @classmethod
    def teardown_class(cls) -> None:
        """Close the runner."""
        harness, cls._harness = cls._harness, None
        if harness is not None:
            harness.runner.close()

    def test_the_model_loads_and_enough_blocks_are_allocated(self) -> None:
        harness = self.harness()
        assert harness.num_blocks >= MIN_BLOCKS, (
            f"allocate() returned {harness.num_blocks} blocks; the contract needs at least {MIN_BLOCKS}"
        )
        assert harness.card.max_model_len >= 4 * self.block_size, (
            f"max_model_len={harness.card.max_model_len} must be at least {4 * self.block_size}, four blocks"
        )

    def test_no_token_is_sampled_before_the_last_prompt_chunk(self) -> None:
        harness = self.harness()
        sequence = harness.sequence(self.prompts[0], logprobs=None)
        [result] = harness.advance([sequence], len(sequence.token_ids) - 1)
        assert result == Sampled(), f"a row with sample=False must return Sampled(), not {result}"
        [result] = harness.advance([sequence])
        assert result.token_id is not None, f"a row with sample=True must return a token: {result}"
        assert result.logprob is None, f"log-probabilities were not requested: {result}"

    def test_chunked_prefill_matches_full_prefill(self) -> None:
        for size in (1, 5, self.block_size, self.block_size + 1):
            self._assert_equal(
                self._reference(0),
                self._generate(self._sequence(0), size),
                f"with the prompt in chunks of {size}",
            )

    def test_results_do_not_depend_on_the_batch(self) -> None:
        alone = [self._generate(sequence) for sequence in self._mixed_batch()]
        for order in (1, -1):
            batch = self._mixed_batch()[::order]
            self.harness().generate(batch, 8)
            for expected, sequence in zip(alone[::order], batch, strict=True):
                self._assert_equal(expected, sequence, "in a batch of different sequences")

    def test_prefill_and_decode_share_a_batch(self) -> None:
        early, late = self._sequence(0), self._sequence(1)
        self.harness().advance([early])
        for _ in range(2):
            self.harness().advance([late, early], self.block_size)
        self.harness().generate([late, early], 3)
        self._assert_equal(self._reference(0), early, "in a batch with a prefill")
        self._assert_equal(self._reference(1), late, "in a batch with a decoding sequence")

    def test_blocks_can_be_in_any_order(self) -> None:
        table = self.harness().allocate_blocks(len(self._long_prompt(0)) + 16)
        for order in (table[::-1], table[1:] + table[:1]):
            found = self._generate(self._sequence(0, block_table=order))
            self._assert_equal(self._reference(0), found, f"with the block table {order}")

    def test_sequences_can_share_prefix_blocks(self) -> None:
        first, second = self._prefix_sharing_pair()
        self.harness().advance([first], second.num_computed)
        self._assert_equal(
            self._reference(0), self._generate(second), "with the prefix blocks of another sequence"
        )

    def test_a_row_reads_blocks_written_by_an_earlier_row_of_the_batch(self) -> None:
        first, second = self._prefix_sharing_pair()
        [_, result] = self.harness().execute([first.next_row(second.num_computed), second.next_row()])
        second.append(result)
        self.harness().generate([second], 7)
        self._assert_equal(
            self._reference(0), second, "with blocks that an earlier row of the same batch writes"
        )

    def test_greedy_and_single_candidate_sampling_take_the_likeliest_token(self) -> None:
        for sampling in ({}, {"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
            temperature = 1.0 if sampling else 0.0
            for result in self._generate(self._sequence(0, temperature=temperature, **sampling)).results:
                assert result.logprob, "logprobs=2 returned no log-probability"
                best = max(value for _, value in result.logprob.top)
                assert result.logprob.logprob >= best - self.tolerance, (
                    f"{sampling or 'temperature=0'} must take the most likely token: {result}"
                )

    def test_sampling_depends_only_on_seed_and_position(self) -> None:
        def sample(seed: int, size: int | None = None) -> list[int]:
            return self._generate(self._sequence(0, temperature=1.0, seed=seed), size).output_token_ids

        expected = [sample(seed) for seed in range(8)]
        assert any(each != expected[0] for each in expected), "eight seeds gave the same tokens; use Row.seed"
        assert [sample(seed) for seed in range(8)] == expected, (
            "the same seed gave different tokens the second time"
        )
        assert sample(0, 5) == expected[0], "the same seed gave different tokens with the prompt in chunks"
        sequences = [self._sequence(0, temperature=1.0, seed=seed) for seed in reversed(range(8))]
        self.harness().generate(sequences, 8)
        assert [sequence.output_token_ids for sequence in sequences] == expected[::-1], (
            "the sampled tokens depend on the other rows of the batch"
        )

    def test_logit_bias_forces_and_bans_tokens(self) -> None:
        plain = self._reference(0).output_token_ids[0]
        other = next(token for token in self.prompts[0] if token != plain)
        for bias, allowed in (({other: FORCE}, True), ({plain: -FORCE}, False)):
            output_token_ids = self._generate(
                self._sequence(0, logit_bias=bias, temperature=1.0)
            ).output_token_ids
            assert all((token == other) if allowed else (token != plain) for token in output_token_ids), (
                f"logit_bias={bias} must {'force' if allowed else 'ban'} its token: {output_token_ids}"
            )

    def test_min_tokens_delays_stop_tokens(self) -> None:
        plain = self._reference(0).output_token_ids
        output_token_ids = self._generate(
            self._sequence(0, stop_token_ids=(plain[0],), min_tokens=4)
        ).output_token_ids
        assert plain[0] not in output_token_ids[:4], (
            f"min_tokens=4 must suppress the stop token {plain[0]}; sampled {output_token_ids}"
        )
        output_token_ids = self._generate(self._sequence(0, stop_token_ids=(plain[0],))).output_token_ids
        assert output_token_ids[0] == plain[0], (
            f"without min_tokens, the stop token {plain[0]} must be sampled first, not {output_token_ids}"
        )

    def test_penalties_apply_to_generated_tokens(self) -> None:
        for penalty in ("presence_penalty", "frequency_penalty"):
            output_token_ids = self._generate(self._sequence(0, **{penalty: FORCE})).output_token_ids
            assert len(set(output_token_ids)) == len(output_token_ids), (
                f"{penalty}={FORCE} must prevent repetition; sampled {output_token_ids}"
            )

    def test_logprobs_include_the_sampled_and_the_likeliest_tokens(self) -> None:
        for sequence in self._mixed_batch():
            for result in self._generate(sequence).results:
                assert result.token_id is not None
                self._check_logprob(result.logprob, result.token_id)

    def test_logprobs_are_those_of_the_unmodified_logits(self) -> None:
        harness, vocabulary = self.harness(), self.harness().card.runtime.get("vocab_size", 0)
        sequence = self._sequence(0)
        harness.execute([sequence.next_row()])
        tokens = range(vocabulary) if 0 < vocabulary <= MAX_SUMMED_VOCABULARY else self.prompts[0]
        total = 0.0
        for token in dict.fromkeys(tokens):
            forced = self._sequence(
                0, block_table=sequence.block_table, logit_bias={token: FORCE}, temperature=0.5, logprobs=0
            )
            [result] = harness.execute([forced.last_token_row()])
            assert result.logprob, "logprobs=0 must return the log-probability of the sampled token"
            assert (result.logprob.token_id, result.logprob.top) == (token, ()), (
                f"logprobs=0 must return the sampled token and an empty top: {result}"
            )
            total += math.exp(result.logprob.logprob)
        assert total <= 1 + self.tolerance, (
            f"the probabilities must add up to at most 1, not {total}; "
            "compute them before logit_bias and temperature"
        )
        if tokens is not self.prompts[0]:
            assert total >= 1 - self.tolerance, (
                f"the probabilities of all tokens must add up to 1, not {total}"
            )

    def test_prompt_logprobs_are_returned_with_their_chunks(self) -> None:
        prompt = self._long_prompt(0)
        for size in (None, 7):
            sequence = self._sequence(0, prompt_logprobs=2)
            self._generate(sequence, size, tokens=2)
            found = [*chain.from_iterable(result.prompt_logprobs for result in sequence.results)]
            assert [each.token_id for each in found] == prompt[1:], (
                f"with the prompt in chunks of {size or len(prompt)}, "
                f"prompt_logprobs must be of the tokens {prompt[1:]}: {found}"
            )
            for position, each in enumerate(found, start=1):
                self._check_logprob(each, prompt[position])
            for position in (1, len(prompt) // 2, len(prompt) - 1):
                token = prompt[position]
                forced = self.harness().sequence(prompt[:position], logit_bias={token: FORCE})
                [result] = self.harness().advance([forced])
                assert result.logprob
                assert self._is_close(result.logprob, found[position - 1]), (
                    f"the prompt log-probability at position {position} must be {result.logprob}, "
                    f"not {found[position - 1]}"
                )

    def test_drafts_are_accepted_up_to_the_first_mismatch(self) -> None:
        if not self.harness().runner.capabilities.verifies_drafts:
            return
        for sampling in ({}, {"temperature": 1.0, "seed": 3}):
            right = self._generate(self._sequence(0, **sampling)).output_token_ids
            wrong = [token + (1 if token == 0 else -1) for token in right]
            for guess in (right[1:5], wrong[1:5], [*right[1:3], wrong[3], right[4]]):
                self._check_draft(right, guess, sampling)

    def test_a_mask_restricts_the_sampled_tokens(self) -> None:
        if not self.harness().runner.capabilities.applies_masks:
            return
        plain = self._reference(0)
        known = dict.fromkeys(token for prompt in self.prompts for token in prompt)
        allowed = [token for token in known if token not in plain.output_token_ids][:2]
        assert allowed, "add a token to `prompts` that the output of the first prompt does not contain"
        against = {allowed[0]: -FORCE, plain.output_token_ids[0]: FORCE}
        for params in ({}, {"temperature": 1.0}, {"logit_bias": against}, {"presence_penalty": FORCE}):
            masked, free = self._sequence(0, allowed=allowed, **params), self._sequence(0)
            self.harness().generate([masked, free], 8)
            assert set(masked.output_token_ids) <= {*allowed}, (
                f"with a mask of {allowed} and {params}, sampled {masked.output_token_ids}"
            )
            self._assert_equal(plain, free, "in a batch with a masked row")
        [expected] = self.harness().advance([self._sequence(0, logit_bias={allowed[0]: FORCE})])
        [found] = self.harness().advance([self._sequence(0, allowed=allowed[:1])])
        assert expected.logprob
        assert found.logprob
        assert self._is_close(expected.logprob, found.logprob), (
            f"a mask must not change log-probabilities: expected {expected.logprob}, received {found.logprob}"
        )

    def test_the_runner_can_be_closed(self) -> None:
        self.teardown_class()

    def _check_draft(self, right: list[int], guess: list[int], sampling: dict[str, Any]) -> None:
        accepted = next((i for i, token in enumerate(guess) if token != right[1 + i]), len(guess))
        sequence = self._sequence(0, **sampling)
        self.harness().advance([sequence])
        [result] = self.harness().execute([sequence.draft_row(guess)])
        wanted = (accepted, right[1 + accepted])
        assert (result.accepted, result.token_id) == wanted, (
            f"drafts {guess} of {right[1:]} must give (accepted, token_id) = {wanted}: {result}"
        )
        logprobs = [*result.accepted_logprobs, result.logprob]
        assert len(logprobs) == accepted + 1, f"expected {accepted + 1} log-probabilities: {result}"
        for each, token in zip(logprobs, right[1:], strict=False):
            self._check_logprob(each, token)

    def _long_prompt(self, index: int) -> list[int]:
        """Return a prompt of more than two blocks."""
        return [*islice(cycle(self.prompts[index]), 2 * self.block_size + 3)]

    def _sequence(self, index: int, **params: Any) -> RunnerSequence:
        return self.harness().sequence(self._long_prompt(index), **params)

    def _prefix_sharing_pair(self) -> tuple[RunnerSequence, RunnerSequence]:
        """Return two equal sequences; the second shares the first two blocks of the first."""
        first = self._sequence(0)
        second = self._sequence(
            0, block_table=first.block_table[:2] + self.harness().allocate_blocks(self.block_size + 16)
        )
        second.num_computed = 2 * self.block_size
        return first, second

    def _mixed_batch(self) -> list[RunnerSequence]:
        """Return sequences of different lengths and sampling parameters."""
        return [
            self.harness().sequence(self._long_prompt(i % len(self.prompts))[: 1 + 5 * i], seed=i, **params)
            for i, params in enumerate(SAMPLING_CASES)
        ]

    def _generate(self, sequence: RunnerSequence, size: int | None = None, tokens: int = 8) -> RunnerSequence:
        self.harness().generate([sequence], tokens, size)
        return sequence

    def _reference(self, index: int) -> RunnerSequence:
        """Generate from a prompt alone and in one chunk; other cases are compared with this result."""
        return self._generate(self._sequence(index))

    def _assert_equal(self, expected: RunnerSequence, found: RunnerSequence, case: str) -> None:
        """Raise `AssertionError` if tokens or log-probabilities differ before the first tie."""
        sampled = [
            [each for each in sequence.results if each.token_id is not None] for sequence in (expected, found)
        ]
        for position, (one, other) in enumerate(zip(*sampled, strict=False)):
            assert one.logprob, "logprobs=2 returned no log-probability"
            assert other.logprob, "logprobs=2 returned no log-probability"
            (_, first), (_, second) = one.logprob.top
            if one.token_id != other.token_id and first - second <= self.tolerance:
                return
            assert self._is_close(one.logprob, other.logprob), (
                f"{case}, result {position} must be {one}, not {other}"
            )

    def _is_close(self, one: TokenLogprob, other: TokenLogprob) -> bool:
        return one.token_id == other.token_id and abs(one.logprob - other.logprob) <= self.tolerance

    def _check_logprob(self, found: TokenLogprob | None, token: int) -> None:
        assert found, "logprobs=2 returned no log-probability"
        assert found.token_id == token, f"expected the log-probability of token {token}: {found}"
        values = [value for _, value in found.top]
        assert len(values) == 2, f"expected the 2 most likely tokens in top: {found}"
        assert values == sorted(values, reverse=True), (
            f"top must be sorted, the most likely token first: {found}"
        )
        assert sum(map(math.exp, values)) <= 1 + self.tolerance, (
            f"the probabilities of the top tokens add up to more than 1: {found}"
        )
        assert found.logprob <= values[0] + self.tolerance, (
            f"no token may be more likely than the first of top: {found}"
        )
