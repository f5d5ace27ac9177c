"""What `fllm.batching` may rely on, whatever the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, cycle, islice
from typing import Any, ClassVar

from fllm.batching.runner import ModelRunner, Sampled
from fllm.testing.runner_harness import BLOCKS, Bench, Line
from fllm.values import TokenLogprob

MEASURABLE = 512
"""Up to so many tokens of a vocabulary, the sum of all their probabilities is measured."""
FORCE = 1000.0
"""Added to a logit, or taken from it, this decides."""
WISHES: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_p": 0.8, "frequency_penalty": 0.5},
    {"repetition_penalty": 1.2},
    {"temperature": 1.0, "top_k": 5, "min_tokens": 5, "logit_bias": {1: 2.0}},
    {"temperature": 1.0, "min_p": 0.1, "presence_penalty": 0.5},
    {},
)
"""What the sequences of a crowd ask of sampling."""


class ModelRunnerContract:
    """Every `ModelRunner` passes this. It is loaded once, and used by one test after another."""

    prompts: ClassVar[Sequence[Sequence[int]]]
    """Token ids of some prompts, at least two, of a few tokens each; long ones are made by repeating them."""
    block_size: ClassVar[int] = 16
    tolerance: ClassVar[float] = 1e-3
    """By so much a log-probability may differ from batch to batch; a tie within it may go either way."""
    _bench: ClassVar[Bench | None] = None

    @classmethod
    def runner(cls) -> ModelRunner:
        """A new runner, not yet loaded, with memory for `BLOCKS` blocks at least."""
        raise NotImplementedError

    @classmethod
    def bench(cls) -> Bench:
        """The loaded runner."""
        if cls._bench is None:
            cls._bench = Bench(cls.runner(), cls.block_size)
        return cls._bench

    @classmethod
    def teardown_class(cls) -> None:
        """Close it."""
        bench, cls._bench = cls._bench, None
        if bench is not None:
            bench.runner.close()

    def test_it_loads_and_gives_blocks(self) -> None:
        bench = self.bench()
        assert bench.blocks >= BLOCKS, f"allocate gave {bench.blocks} blocks; the contract needs {BLOCKS}"
        assert bench.card.max_model_len >= 4 * self.block_size, "the contract's prompts do not fit"

    def test_a_chunk_that_does_not_end_its_prompt_samples_nothing(self) -> None:
        bench = self.bench()
        line = bench.line(self.prompts[0], logprobs=None)
        [result] = bench.advance([line], len(line.ids) - 1)
        assert result == Sampled(), f"sample=False gave {result}"
        [result] = bench.advance([line])
        assert result.token_id is not None, "sample=True gave no token"
        assert result.logprob is None, "log-probabilities that nobody asked for"

    def test_chunks_give_what_the_whole_prompt_gives(self) -> None:
        for size in (1, 5, self.block_size, self.block_size + 1):
            self._alike(self._whole(0), self._generated(self._line(0), size), f"in chunks of {size}")

    def test_neighbours_and_their_order_change_no_result(self) -> None:
        alone = [self._generated(line) for line in self._crowd()]
        for turn in (1, -1):
            crowd = self._crowd()[::turn]
            self.bench().generate(crowd, 8)
            for expected, line in zip(alone[::turn], crowd, strict=True):
                self._alike(expected, line, "with neighbours")

    def test_prompts_and_answers_share_a_batch(self) -> None:
        early, late = self._line(0), self._line(1)
        self.bench().advance([early])
        for _ in range(2):
            self.bench().advance([late, early], self.block_size)
        self.bench().generate([late, early], 3)
        self._alike(self._whole(0), early, "beside a prompt")
        self._alike(self._whole(1), late, "beside an answer")

    def test_blocks_may_lie_in_any_order(self) -> None:
        table = self.bench().table(len(self._long(0)) + 16)
        for order in (table[::-1], table[1:] + table[:1]):
            found = self._generated(self._line(0, table=order))
            self._alike(self._whole(0), found, f"with blocks {order}")

    def test_sequences_may_share_the_blocks_of_their_beginning(self) -> None:
        first, second = self._sharing()
        self.bench().advance([first], second.done)
        self._alike(self._whole(0), self._generated(second), "on another's blocks")

    def test_a_row_reads_what_an_earlier_row_of_its_batch_writes(self) -> None:
        first, second = self._sharing()
        [_, result] = self.bench().execute([first.row(second.done), second.row()])
        second.hear(result)
        self.bench().generate([second], 7)
        self._alike(self._whole(0), second, "on blocks of the same batch")

    def test_greedy_is_the_likeliest_and_so_is_a_draw_from_one(self) -> None:
        for sampling in ({}, {"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
            temperature = 1.0 if sampling else 0.0
            for result in self._generated(self._line(0, temperature=temperature, **sampling)).results:
                assert result.logprob, "logprobs=2 gave none"
                best = max(value for _, value in result.logprob.top)
                assert result.logprob.logprob >= best - self.tolerance, (
                    f"{sampling or 'greedy'} gave {result}"
                )

    def test_a_draw_depends_on_seed_and_position_alone(self) -> None:
        def drawn(seed: int, size: int | None = None) -> list[int]:
            return self._generated(self._line(0, temperature=1.0, seed=seed), size).said

        expected = [drawn(seed) for seed in range(8)]
        assert any(said != expected[0] for said in expected), "eight seeds gave the same tokens"
        assert [drawn(seed) for seed in range(8)] == expected, "a seed gave other tokens the second time"
        assert drawn(0, 5) == expected[0], "a seed gave other tokens where the prompt came in chunks"
        lines = [self._line(0, temperature=1.0, seed=seed) for seed in reversed(range(8))]
        self.bench().generate(lines, 8)
        assert [line.said for line in lines] == expected[::-1], "a draw depends on its neighbours"

    def test_a_bias_forces_and_forbids(self) -> None:
        plain = self._whole(0).said[0]
        other = next(token for token in self.prompts[0] if token != plain)
        for bias, allowed in (({other: FORCE}, True), ({plain: -FORCE}, False)):
            said = self._generated(self._line(0, logit_bias=bias, temperature=1.0)).said
            assert all((token == other) if allowed else (token != plain) for token in said), (
                f"{bias} gave {said}"
            )

    def test_no_stop_token_is_sampled_too_early(self) -> None:
        plain = self._whole(0).said
        said = self._generated(self._line(0, stop_token_ids=(plain[0],), min_tokens=4)).said
        assert plain[0] not in said[:4], f"min_tokens=4 and stop token {plain[0]} gave {said}"
        said = self._generated(self._line(0, stop_token_ids=(plain[0],))).said
        assert said[0] == plain[0], f"the stop token {plain[0]} is allowed, and gave {said}"

    def test_penalties_fall_on_what_was_said(self) -> None:
        for penalty in ("presence_penalty", "frequency_penalty"):
            said = self._generated(self._line(0, **{penalty: FORCE})).said
            assert len(set(said)) == len(said), f"{penalty}={FORCE} gave {said}"

    def test_log_probabilities_are_of_the_sampled_token_and_the_likeliest(self) -> None:
        for line in self._crowd():
            for result in self._generated(line).results:
                assert result.token_id is not None
                self._check(result.logprob, result.token_id)

    def test_log_probabilities_are_the_models_own(self) -> None:
        bench, vocabulary = self.bench(), self.bench().card.runtime.get("vocab_size", 0)
        line = self._line(0)
        bench.execute([line.row()])
        tokens = range(vocabulary) if 0 < vocabulary <= MEASURABLE else self.prompts[0]
        total = 0.0
        for token in dict.fromkeys(tokens):
            forced = self._line(0, table=line.table, logit_bias={token: FORCE}, temperature=0.5, logprobs=0)
            [result] = bench.execute([forced.again()])
            assert result.logprob, "logprobs=0 gave no log-probability of the sampled token"
            assert (result.logprob.token_id, result.logprob.top) == (token, ()), f"logprobs=0 gave {result}"
            total += math.exp(result.logprob.logprob)
        assert total <= 1 + self.tolerance, f"the probabilities add up to {total}"
        if tokens is not self.prompts[0]:
            assert total >= 1 - self.tolerance, f"the probabilities of all tokens add up to {total}"

    def test_log_probabilities_of_the_prompt_come_with_its_chunks(self) -> None:
        prompt = self._long(0)
        for size in (None, 7):
            line = self._line(0, prompt_logprobs=2)
            self._generated(line, size, tokens=2)
            found = [*chain.from_iterable(result.prompt_logprobs for result in line.results)]
            assert [each.token_id for each in found] == prompt[1:], f"in chunks of {size}, {found}"
            for place, each in enumerate(found, start=1):
                self._check(each, prompt[place])
            for place in (1, len(prompt) // 2, len(prompt) - 1):
                token, before = prompt[place], self.bench().line
                forced = before(prompt[:place], logit_bias={token: FORCE})
                [result] = self.bench().advance([forced])
                assert result.logprob
                assert self._near(result.logprob, found[place - 1]), (
                    f"{found[place - 1]} and {result.logprob}"
                )

    def test_guesses_are_accepted_for_as_long_as_they_are_right(self) -> None:
        if not self.bench().runner.capabilities.verifies_drafts:
            return
        for sampling in ({}, {"temperature": 1.0, "seed": 3}):
            right = self._generated(self._line(0, **sampling)).said
            wrong = [token + (1 if token == 0 else -1) for token in right]
            for guess in (right[1:5], wrong[1:5], [*right[1:3], wrong[3], right[4]]):
                self._check_guess(right, guess, sampling)

    def test_only_what_a_mask_allows_is_sampled(self) -> None:
        if not self.bench().runner.capabilities.applies_masks:
            return
        plain = self._whole(0)
        known = dict.fromkeys(token for prompt in self.prompts for token in prompt)
        allowed = [token for token in known if token not in plain.said][:2]
        assert allowed, "the prompts need a token that the answer to the first has not"
        against = {allowed[0]: -FORCE, plain.said[0]: FORCE}
        for wishes in ({}, {"temperature": 1.0}, {"logit_bias": against}, {"presence_penalty": FORCE}):
            masked, free = self._line(0, allowed=allowed, **wishes), self._line(0)
            self.bench().generate([masked, free], 8)
            assert set(masked.said) <= {*allowed}, f"a mask of {allowed} with {wishes} gave {masked.said}"
            self._alike(plain, free, "beside a mask")
        [expected] = self.bench().advance([self._line(0, logit_bias={allowed[0]: FORCE})])
        [found] = self.bench().advance([self._line(0, allowed=allowed[:1])])
        assert expected.logprob
        assert found.logprob
        assert self._near(expected.logprob, found.logprob), f"a mask changes log-probabilities: {found}"

    def test_it_can_be_closed(self) -> None:
        self.teardown_class()

    def _check_guess(self, right: list[int], guess: list[int], sampling: dict[str, Any]) -> None:
        accepted = next((i for i, token in enumerate(guess) if token != right[1 + i]), len(guess))
        line = self._line(0, **sampling)
        self.bench().advance([line])
        [result] = self.bench().execute([line.guessing(guess)])
        wanted = (accepted, right[1 + accepted])
        assert (result.accepted, result.token_id) == wanted, f"after {right[:1]}, {guess} gave {result}"
        described = [*result.accepted_logprobs, result.logprob]
        assert len(described) == accepted + 1, f"there must be a log-probability for each: {result}"
        for each, token in zip(described, right[1:], strict=False):
            self._check(each, token)

    def _long(self, index: int) -> list[int]:
        """A prompt of more than two blocks."""
        return [*islice(cycle(self.prompts[index]), 2 * self.block_size + 3)]

    def _line(self, index: int, **how: Any) -> Line:
        return self.bench().line(self._long(index), **how)

    def _sharing(self) -> tuple[Line, Line]:
        """Two equal sequences; the second begins after two blocks, which are the first's."""
        first = self._line(0)
        second = self._line(0, table=first.table[:2] + self.bench().table(self.block_size + 16))
        second.done = 2 * self.block_size
        return first, second

    def _crowd(self) -> list[Line]:
        """Sequences of all lengths, each with wishes of its own."""
        return [
            self.bench().line(self._long(i % len(self.prompts))[: 1 + 5 * i], seed=i, **wishes)
            for i, wishes in enumerate(WISHES)
        ]

    def _generated(self, line: Line, size: int | None = None, tokens: int = 8) -> Line:
        self.bench().generate([line], tokens, size)
        return line

    def _whole(self, index: int) -> Line:
        """The same alone, its prompt in one piece: what all others are measured by."""
        return self._generated(self._line(index))

    def _alike(self, expected: Line, found: Line, how: str) -> None:
        """Assert the same tokens and log-probabilities, up to the first place where two were likeliest."""
        sampled = [[each for each in line.results if each.token_id is not None] for line in (expected, found)]
        for place, (one, other) in enumerate(zip(*sampled, strict=False)):
            assert one.logprob, "logprobs=2 gave none"
            assert other.logprob, "logprobs=2 gave none"
            (_, first), (_, second) = one.logprob.top
            if one.token_id != other.token_id and first - second <= self.tolerance:
                return
            assert self._near(one.logprob, other.logprob), f"{how}, token {place} is {other}, not {one}"

    def _near(self, one: TokenLogprob, other: TokenLogprob) -> bool:
        return one.token_id == other.token_id and abs(one.logprob - other.logprob) <= self.tolerance

    def _check(self, found: TokenLogprob | None, token: int) -> None:
        assert found, "logprobs=2 gave none"
        assert found.token_id == token, f"it is of another token than {token}: {found}"
        values = [value for _, value in found.top]
        assert len(values) == 2, f"two of the likeliest were asked for: {found}"
        assert values == sorted(values, reverse=True), f"the likeliest come first: {found}"
        assert sum(map(math.exp, values)) <= 1 + self.tolerance, f"the probabilities exceed 1: {found}"
        assert found.logprob <= values[0] + self.tolerance, f"none is likelier than the likeliest: {found}"
