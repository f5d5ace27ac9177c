import time
from functools import partial
from threading import Thread

from support.fake_runner import FakeRunner
from support.manual_masks import ManualWorker, MaskedRunner, grammar_of

from fllm.batching.engine_loop import EngineLoop, Outcome
from fllm.batching.limits import BatchLimits
from fllm.config import BackendConfig
from fllm.values import EngineOutput, GenerateRequest, SamplingParams


def loop_over(runner: FakeRunner) -> EngineLoop:
    loop = EngineLoop(runner, BackendConfig(model="m"), BatchLimits(block_size=4))
    loop.load(lambda progress: None)
    return loop


def submit(loop: EngineLoop, request_id: str, max_tokens: int) -> None:
    loop.submit(
        GenerateRequest(request_id, [1, 2], SamplingParams(max_tokens=max_tokens)), seed=0, arrival_time=0.0
    )


def test_the_outcomes_of_a_step_are_delivered_together():
    loop = loop_over(FakeRunner())
    for name, max_tokens in (("a", 1), ("b", 3), ("c", 2)):
        submit(loop, name, max_tokens)
    delivered: list[list[str]] = []

    def deliver(outcomes: list[tuple[str, Outcome]]) -> None:
        delivered.append([request_id for request_id, _ in outcomes])
        if len(delivered) == 3:
            loop.end()

    loop.run(deliver)
    assert delivered == [["a", "b", "c"], ["b", "c"], ["b"]]


def test_commands_are_processed_between_two_steps():
    runner = FakeRunner()
    loop = loop_over(runner)
    submit(loop, "a", 100)
    seen: list[str] = []

    def deliver(outcomes: list[tuple[str, Outcome]]) -> None:
        [(request_id, outcome)] = outcomes
        assert isinstance(outcome, EngineOutput)
        seen.append(request_id)
        if request_id == "a":
            loop.abort("a")
            submit(loop, "b", 1)
        else:
            loop.end()

    loop.run(deliver)
    assert seen == ["a", "b"]
    assert loop.status().running == 0
    assert runner.closed


def test_the_engine_sleeps_while_all_sequences_wait_for_their_grammars():
    loop, worker = loop_over(MaskedRunner()), ManualWorker()
    loop.mask_worker = worker
    request = GenerateRequest("a", [1, 2], SamplingParams(max_tokens=1))
    loop.submit(request, seed=0, arrival_time=0.0, grammar=grammar_of("1", worker))
    outcomes: list[tuple[str, Outcome]] = []
    steps = 0

    def count_steps() -> None:
        nonlocal steps
        steps += 1

    worker.check = count_steps  # type: ignore[method-assign]
    worker.wake_engine = partial(loop.abort, "nobody")  # any command wakes it
    thread = Thread(target=loop.run, args=(outcomes.extend,))
    thread.start()
    while not steps:
        time.sleep(0.001)
    time.sleep(0.2)
    assert steps < 20
    assert loop.step is None  # so the watchdog sees no step that hangs
    while not outcomes:
        if worker.tasks:
            worker.compute()
    loop.end()
    thread.join()
    [(_, outcome)] = outcomes
    assert isinstance(outcome, EngineOutput)
    assert (outcome.token_ids, outcome.finish_reason) == ([1], "stop")
