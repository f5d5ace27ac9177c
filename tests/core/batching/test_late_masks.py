"""Sequences whose masks are late sit steps out, and end up with the tokens that they should have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from support.fake_runner import logprob
from support.manual_masks import ManualWorker, MaskedRunner, grammar_of

from fllm.batching.block_pool import BlockPool
from fllm.batching.limits import BatchLimits
from fllm.batching.scheduler import Outcome, Scheduler
from fllm.errors import BackendError, RequestError
from fllm.values import EngineOutput, GenerateRequest, SamplingParams

from .test_scheduler_machine import SchedulerMachine


class LateMaskMachine(SchedulerMachine):
    """Adds sequences with a grammar, whose worker does nothing until it is told to."""

    runner_type = MaskedRunner

    def __init__(self) -> None:
        super().__init__()
        self.worker = ManualWorker()
        self.texts: dict[str, str] = {}

    @rule(
        text=st.text("1234", min_size=1, max_size=8),
        prompt=st.lists(st.integers(1, 2), min_size=1, max_size=12),
        forcing=st.booleans(),
        logprobs=st.sampled_from([None, 0]),
        prompt_logprobs=st.sampled_from([None, 0]),
        max_tokens=st.integers(0, 10),
        client=st.sampled_from("ab"),
        slow=st.booleans(),
    )
    def add_constrained(
        self,
        text: str,
        prompt: list[int],
        forcing: bool,
        logprobs: int | None,
        prompt_logprobs: int | None,
        max_tokens: int,
        client: str,
        slow: bool,
    ) -> None:
        self.count += 1
        request_id = f"{self.count}-constrained"
        ids = prompt[: self.max_model_len - 1]
        sampling = SamplingParams(max_tokens=max_tokens, logprobs=logprobs, prompt_logprobs=prompt_logprobs)
        request = GenerateRequest(request_id, ids, sampling, group=request_id, client=client)
        grammar = grammar_of("f" * forcing + text, self.worker)
        grammar._typical_cpu_seconds = 1e9 if slow else 0.0
        self.scheduler.add(request, seed=0, arrival_time=0.0, grammar=grammar)
        self.requests[request_id] = request
        self.outputs[request_id] = []
        self.texts[request_id] = text[: min(max_tokens, self.max_model_len - len(ids))]

    @precondition(lambda self: self.worker.tasks)
    @rule()
    def compute(self) -> None:
        self.worker.compute()

    @precondition(lambda self: self.scheduler.busy)
    @rule()
    def step(self) -> None:
        outcomes: list[tuple[str, Outcome]] = self.scheduler.poll_grammars()
        batch = self.scheduler.schedule()
        assert batch.rows or self.worker.tasks or not self.scheduler.busy, "it waits for nothing"
        outcomes += self.scheduler.complete(batch, self.runner.execute(batch.rows))
        for request_id, output in outcomes:
            assert isinstance(output, EngineOutput), output
            self.check_prompt_logprobs(request_id, output)
            self.check_logprobs(request_id, output)
            self.outputs[request_id] += output.token_ids
            if output.finish_reason is not None:
                self.check_answer(request_id)

    def check_logprobs(self, request_id: str, output: EngineOutput) -> None:
        request = self.requests[request_id]
        context, expected = request.token_ids + self.outputs[request_id], []
        for token in output.token_ids:
            expected.append(logprob(context, token))
            context = [*context, token]
        assert (output.logprobs or []) == (expected if request.sampling.logprobs is not None else [])

    def check_answer(self, request_id: str) -> None:
        if request_id not in self.texts:
            super().check_answer(request_id)
            return
        del self.requests[request_id]
        assert "".join(map(str, self.outputs[request_id])) == self.texts[request_id]

    def teardown(self) -> None:
        while self.scheduler.busy:
            self.step()
            if self.worker.tasks:
                self.compute()
        assert not self.requests
        assert self.pool.num_free == self.pool.num_blocks


LateMaskMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestLateMasks = LateMaskMachine.TestCase


class Steps:
    """A scheduler with a worker and a runner, stepped by hand."""

    def __init__(self, *, seqs: int = 4, blocks: int = 16) -> None:
        self.runner = MaskedRunner(blocks=blocks)
        self.worker = ManualWorker()
        limits = BatchLimits(max_num_seqs=seqs, max_num_batched_tokens=32, block_size=4)
        self.scheduler = Scheduler(BlockPool(blocks, 4), limits, max_model_len=64)

    def add(
        self, name: str, text: str | None = None, *, client: str = "", slow: bool = False, **sampling: Any
    ) -> None:
        grammar = None if text is None else grammar_of(text, self.worker, client)
        if grammar is not None and slow:
            grammar._typical_cpu_seconds = 1e9
        params = SamplingParams(**{"max_tokens": 9, "seed": 0, **sampling})
        request = GenerateRequest(name, [1, 2, 3], params, client=client)
        self.scheduler.add(request, seed=0, arrival_time=0.0, grammar=grammar)

    def step(self) -> dict[str, Outcome]:
        """Return the outcomes of a step by name."""
        outcomes = self.scheduler.poll_grammars()
        batch = self.scheduler.schedule()
        outcomes += self.scheduler.complete(batch, self.runner.execute(batch.rows))
        return dict(outcomes)

    def step_until_output(self) -> tuple[list[int], str | None]:
        """Step until the only sequence has an output; return its tokens and its finish reason."""
        while not (outcomes := self.step()):
            self.compute_all()
        self.compute_all()
        [output] = outcomes.values()
        assert isinstance(output, EngineOutput)
        return output.token_ids, output.finish_reason

    def counts(self) -> list[int]:
        """Return how many tokens each row has computed."""
        return [row.count for batch in self.runner.batches for row in batch]

    def compute_all(self) -> None:
        while self.worker.tasks:
            self.worker.compute()

    def tokens(self) -> dict[str, list[int]]:
        """Return the tokens of a step by name."""
        outputs = {name: output for name, output in self.step().items() if isinstance(output, EngineOutput)}
        return {name: output.token_ids for name, output in outputs.items()}


def test_a_late_sequence_sits_steps_out_and_costs_no_rows() -> None:
    steps = Steps()
    steps.add("late", "123")
    steps.add("free")
    assert set(steps.tokens()) == {"free"}  # the row of "late" has computed all of its prompt but a token
    for _ in range(2):
        assert set(steps.tokens()) == {"free"}
        assert len(steps.runner.batches[-1]) == 1
    steps.worker.compute()
    assert set(steps.tokens()) == {"free"}  # the last token of the prompt is computed in vain
    assert set(steps.tokens()) == {"free"}
    assert len(steps.runner.batches[-1]) == 1
    steps.worker.compute()
    assert set(steps.tokens()) == {"free"}  # it waits until its token is accepted
    steps.worker.compute()
    assert steps.tokens()["late"] == [1]


def test_a_text_that_is_complete_ends_with_its_last_token_however_late() -> None:
    steps = Steps()
    steps.add("r", "1")
    steps.step()
    steps.compute_all()
    assert steps.step() == {}
    steps.worker.compute()
    output = steps.step()["r"]
    assert isinstance(output, EngineOutput)
    assert (output.token_ids, output.finish_reason) == ([1], "stop")
    assert not steps.scheduler.busy


def test_the_engine_is_woken_by_what_it_waits_for() -> None:
    steps = Steps()
    steps.add("r", "12")
    steps.step()
    assert steps.step() == {}
    steps.worker.compute()
    assert steps.worker.wakes == 1


def test_an_aborted_sequence_computes_nothing_more() -> None:
    steps = Steps()
    steps.add("r", "x")  # its mask raises
    steps.step()
    steps.scheduler.abort("r")
    steps.compute_all()
    assert not steps.scheduler.busy
    assert steps.step() == {}


def test_a_failed_grammar_ends_its_sequence_while_it_waits() -> None:
    steps = Steps()
    steps.add("bad", "x")
    steps.add("free")
    steps.step()
    steps.compute_all()
    outcomes = steps.step()
    assert isinstance(outcomes["bad"], BackendError)
    assert isinstance(outcomes["free"], EngineOutput)
    assert len(steps.runner.batches[-1]) == 1


def test_sequences_that_wait_for_their_grammars_do_not_keep_a_client_out() -> None:
    steps = Steps(seqs=2)
    for name in ("a", "b"):
        steps.add(name, "12", client="hostile", slow=True)
    steps.step()
    steps.add("other", client="normal", max_tokens=2)
    assert set(steps.tokens()) == {"other"}
    assert steps.scheduler.status().running == 2
    found: dict[str, list[int]] = {"a": [], "b": []}
    while steps.scheduler.busy:
        steps.compute_all()
        for name, tokens in steps.tokens().items():
            found.setdefault(name, []).extend(tokens)
    assert (found["a"], found["b"]) == ([1, 2], [1, 2])


def test_a_sequence_fails_alone_after_its_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fllm.structured_output.grammar_state.CPU_SECONDS", -1.0)
    steps = Steps()
    steps.add("slow", "12")
    steps.add("free")
    steps.step()
    steps.worker.compute()
    outcomes = steps.step()
    error = outcomes["slow"]
    assert isinstance(error, RequestError)
    assert "the grammar is too slow" in error.message
    assert isinstance(outcomes["free"], EngineOutput)


def test_forced_tokens_are_computed_with_the_prompt_and_cost_no_steps() -> None:
    steps = Steps()
    steps.add("r", "f3314341")
    steps.compute_all()
    assert steps.step_until_output() == ([3, 3, 1], None)
    assert steps.step_until_output() == ([4, 3, 4, 1], "stop")
    assert steps.counts() == [5, 4]


def test_forced_tokens_at_the_end_are_not_computed() -> None:
    steps = Steps()
    steps.add("r", "f1334")
    steps.compute_all()
    assert steps.step_until_output() == ([1, 3, 3, 4], "stop")
    assert steps.counts() == [3]


def test_a_text_that_is_forced_as_a_whole_ends_without_a_sample() -> None:
    steps = Steps()
    steps.add("r", "f3343")
    steps.compute_all()
    assert steps.step_until_output() == ([3, 3, 4, 3], "stop")
    assert not any(row.sample for batch in steps.runner.batches for row in batch)


def test_forced_tokens_count_for_max_tokens() -> None:
    steps = Steps()
    steps.add("r", "f13343", max_tokens=3)
    steps.compute_all()
    assert steps.step_until_output() == ([1, 3, 3], "length")


def test_a_sequence_whose_forced_tokens_need_blocks_gets_them() -> None:
    steps = Steps()
    steps.add("r", "f" + "1" + "3" * 20 + "2", max_tokens=30)
    steps.compute_all()
    assert steps.step_until_output() == ([1], None)
    assert steps.step_until_output() == ([3] * 20 + [2], "stop")
