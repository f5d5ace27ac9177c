"""Admission without HTTP: capacity, sequences and the limits of clients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from support.clock import Clock

from fllm.pipeline.beam_search import BeamSearchParams
from fllm.pipeline.pipeline import PipelineRequest
from fllm.values import ModelCard, SamplingParams
from fllm_api.config import RateLimits, ServerConfig
from fllm_api.limits.admission import DEFAULT_MAX_NUM_SEQS, Admission, ServerBusy, sequence_capacity
from fllm_api.limits.client_limits import RateLimited


@dataclass(eq=False)
class Cost:
    """A request with a number of generated tokens."""

    generated_tokens: int = 0


def asked(prompts: int = 1, *, tokens: int = 1, **how: Any) -> tuple[int, int]:
    """Return the numbers of sequences and of prompt tokens of a request."""
    each = [[1] * tokens] * prompts
    request = PipelineRequest(prompts=each, sampling=SamplingParams(max_tokens=1), **how)
    return request.num_sequences, prompts * tokens


def admission(most: int = 10, clock: Clock | None = None, **limits: int) -> Admission:
    return Admission(most, RateLimits(**limits), clock=clock or Clock())


def test_a_request_counts_as_one_sequence_until_reserve_and_is_released_once():
    gate = admission(10)
    slot = gate.admit("a", Cost())
    assert gate.in_flight == 1
    slot.reserve(*asked(2, n=3))
    assert gate.in_flight == 6
    gate.admit("a", Cost())
    for _ in range(2):
        slot.release()
        assert gate.in_flight == 1


def test_an_owner_may_have_limits_of_its_own():
    gate = Admission(10, RateLimits(concurrency=1), {"team": RateLimits(concurrency=2)}, clock=Clock())
    for client in ("owner:team", "owner:team", "owner:other"):
        gate.admit(client, Cost())
    for client in ("owner:team", "owner:other", "key:team"):
        if client == "key:team":
            gate.admit(client, Cost())
        with pytest.raises(RateLimited):
            gate.admit(client, Cost())


@pytest.mark.parametrize(
    ("request_", "sequences"),
    [
        (asked(), 1),
        (asked(3), 3),
        (asked(n=4), 4),
        (asked(2, n=2, best_of=5), 10),
        (asked(2, n=1, beam=BeamSearchParams(width=4)), 8),
    ],
)
def test_num_sequences_is_what_the_engine_runs_at_once(request_: tuple[int, int], sequences: int):
    assert request_[0] == sequences


def test_a_client_that_holds_little_has_room_beyond_what_another_can_fill():
    gate = admission(16)
    most = gate.admit("a", Cost())
    most.reserve(*asked(16))
    for client in ("b", "c"):
        gate.admit(client, Cost())
        with pytest.raises(ServerBusy):
            gate.admit("a", Cost())
    with pytest.raises(ServerBusy):
        gate.admit("d", Cost())
    most.release()
    with pytest.raises(ServerBusy):
        gate.admit("a", Cost()).reserve(*asked(16))
    assert gate.in_flight == 3


def test_the_server_is_busy_at_its_capacity_until_a_request_is_released():
    gate = admission(2)
    first, _ = gate.admit("a", Cost()), gate.admit("a", Cost())
    with pytest.raises(ServerBusy) as caught:
        gate.admit("b", Cost())
    assert caught.value.status_code == 503
    assert caught.value.headers == {"Retry-After": "1"}
    first.release()
    gate.admit("b", Cost())


def test_sequences_that_do_not_fit_are_rejected_and_reserve_nothing():
    gate = admission(4)
    gate.admit("a", Cost()).reserve(*asked(n=3))
    slot = gate.admit("b", Cost())
    with pytest.raises(ServerBusy):
        slot.reserve(*asked(n=2))
    assert gate.in_flight == 4
    slot.release()
    assert gate.in_flight == 3


def test_what_is_read_of_a_prompt_is_charged_once_and_kept_if_the_request_is_rejected():
    gate = admission(tokens_per_minute=100)
    slot = gate.admit("a", Cost())
    slot.charge(30)
    assert slot.headers()["x-ratelimit-remaining-tokens"] == "70"
    slot.reserve(*asked(tokens=40))
    assert slot.headers()["x-ratelimit-remaining-tokens"] == "60"
    rejected = gate.admit("a", Cost())
    rejected.charge(50)
    rejected.release()
    assert slot.headers()["x-ratelimit-remaining-tokens"] == "10"


def test_a_request_is_not_rejected_for_the_tokens_of_its_own_prompt():
    slot = admission(tokens_per_minute=100).admit("a", Cost())
    slot.charge(500)
    slot.reserve(*asked(tokens=500))
    assert slot.headers()["x-ratelimit-remaining-tokens"] == "0"


def test_the_concurrency_of_each_client_is_limited():
    gate = admission(concurrency=2)
    first, _ = gate.admit("a", Cost()), gate.admit("a", Cost())
    with pytest.raises(
        RateLimited, match="2 sequences in flight, and the limit of 2 has no room for 1 more"
    ) as caught:
        gate.admit("a", Cost())
    assert caught.value.status_code == 429
    gate.admit("b", Cost())
    assert gate.in_flight == 3
    first.release()
    gate.admit("a", Cost())


def test_the_sequences_of_one_request_count_for_the_concurrency_of_its_client():
    gate = admission(concurrency=4)
    first, second = gate.admit("a", Cost()), gate.admit("a", Cost())
    first.reserve(*asked(3))
    with pytest.raises(RateLimited, match="4 sequences in flight, and the limit of 4 has no room for 1 more"):
        second.reserve(*asked(2))
    assert gate.in_flight == 4
    first.release()
    second.reserve(*asked(4))
    with pytest.raises(RateLimited):
        gate.admit("a", Cost())
    second.release()
    gate.admit("a", Cost()).reserve(*asked(4))


def test_a_request_rejected_because_the_server_is_busy_is_not_in_flight():
    gate = admission(1, concurrency=1)
    first = gate.admit("a", Cost())
    for _ in range(2):
        with pytest.raises(ServerBusy):
            gate.admit("b", Cost())
    first.release()
    gate.admit("b", Cost())


def test_used_tokens_of_prompts_and_outputs_refill():
    clock, cost = Clock(), Cost()
    gate = admission(clock=clock, tokens_per_minute=60)
    slot = gate.admit("a", cost)
    slot.reserve(*asked(2, tokens=10))
    cost.generated_tokens = 50
    slot.release()
    with pytest.raises(RateLimited, match="60 tokens a minute") as caught:
        gate.admit("a", Cost())
    assert caught.value.headers == {
        "Retry-After": "11",
        "x-ratelimit-limit-tokens": "60",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "70.000s",
    }
    gate.admit("b", Cost())
    clock.now += 11
    gate.admit("a", Cost())


def test_tokens_of_requests_in_flight_count():
    cost = Cost()
    gate = admission(tokens_per_minute=60)
    gate.admit("a", cost).reserve(*asked())
    cost.generated_tokens = 40
    gate.admit("a", Cost())
    cost.generated_tokens = 60
    with pytest.raises(RateLimited):
        gate.admit("a", Cost())


def test_simultaneous_requests_do_not_all_use_the_same_tokens():
    gate = admission(tokens_per_minute=60)
    first, second = gate.admit("a", Cost()), gate.admit("a", Cost())
    first.reserve(*asked(tokens=70))
    with pytest.raises(RateLimited):
        second.reserve(*asked(tokens=70))


def test_rate_limit_headers():
    gate = admission(tokens_per_minute=600)
    slot = gate.admit("a", Cost())
    slot.reserve(*asked(tokens=100))
    assert slot.headers() == {
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "500",
        "x-ratelimit-reset-tokens": "10.000s",
    }
    assert admission(concurrency=1).admit("a", Cost()).headers() == {}
    assert admission().admit("a", Cost()).headers() == {}


def test_idle_clients_are_evicted():
    clock = Clock()
    gate = admission(clock=clock, concurrency=5, tokens_per_minute=60)
    assert gate._clients is not None
    for number in range(1000):
        slot = gate.admit(f"{number}", Cost())
        slot.reserve(*asked())
        slot.release()
        clock.now += 0.1  # a token is there again after a second
    assert len(gate._clients) < 30


def test_a_client_in_debt_or_in_flight_is_not_evicted():
    clock = Clock()
    gate = admission(1000, clock=clock, concurrency=1, tokens_per_minute=60)
    gate.admit("in flight", Cost())
    slot = gate.admit("in debt", Cost())
    slot.reserve(*asked(tokens=500))
    slot.release()
    for number in range(50):
        clock.now += 1
        gate.admit(f"{number}", Cost()).release()
    for client in ("in flight", "in debt"):
        with pytest.raises(RateLimited):
            gate.admit(client, Cost())


@pytest.mark.parametrize(
    ("runtime", "running"),
    [({"max_num_seqs": 3}, 3), ({}, DEFAULT_MAX_NUM_SEQS), ({"max_num_seqs": None}, DEFAULT_MAX_NUM_SEQS)],
)
def test_the_capacity_is_what_may_run_and_what_may_wait(runtime: dict[str, Any], running: int):
    card = ModelCard(tokenizer="", max_model_len=1, runtime=runtime)
    assert sequence_capacity([card], ServerConfig(served_model_name="m", max_queue=7)) == running + 7


def test_a_thousand_streams_fit_by_default():
    card = ModelCard(tokenizer="", max_model_len=1, runtime={"max_num_seqs": 64})
    assert sequence_capacity([card], ServerConfig(served_model_name="m")) >= 1000


def test_the_background_leaves_half_of_the_capacity_and_delays_no_other_request():
    gate = admission(4)
    slots = [gate.admit("a", Cost(), background=True) for _ in range(2)]
    with pytest.raises(ServerBusy):
        gate.admit("a", Cost(), background=True)
    gate.admit("b", Cost()).reserve(*asked(4))
    assert (gate.in_flight, gate.in_background) == (4, 2)
    slots[0].release()
    with pytest.raises(ServerBusy):
        slots[1].reserve(*asked(2))
    slots[1].release()
    assert (gate.in_flight, gate.in_background) == (4, 0)


def test_a_request_in_the_background_that_is_larger_than_half_of_the_capacity_is_admitted_alone():
    gate = admission(8)
    others = [gate.admit("a", Cost(), background=True) for _ in range(3)]
    large = gate.admit("a", Cost(), background=True)
    with pytest.raises(ServerBusy):
        large.reserve(*asked(8))
    others.pop().release()
    large.reserve(*asked(8))
    with pytest.raises(ServerBusy):
        gate.admit("a", Cost(), background=True)
    large.release()
    assert gate.in_background == 2


def test_the_background_of_a_client_takes_no_place_of_its_other_requests():
    gate = admission(concurrency=2)
    slots = [gate.admit("a", Cost(), background=True) for _ in range(2)]
    live = gate.admit("a", Cost())
    live.reserve(*asked(2))
    with pytest.raises(RateLimited, match="you have 2 sequences in flight"):
        gate.admit("a", Cost())
    slots[0].release()
    with pytest.raises(RateLimited, match="you have 3 sequences in flight"):
        gate.admit("a", Cost(), background=True)
    live.release()
    gate.admit("a", Cost(), background=True)


def test_the_background_of_a_client_leaves_half_of_its_tokens():
    clock = Clock()
    gate = admission(tokens_per_minute=100, clock=clock)
    gate.admit("a", Cost(), background=True).reserve(*asked(tokens=51))
    with pytest.raises(RateLimited) as caught:
        gate.admit("a", Cost(), background=True)
    assert caught.value.headers is not None
    assert caught.value.headers["Retry-After"] == "1"
    gate.admit("a", Cost()).release()
    clock.now += 1
    gate.admit("a", Cost(), background=True)
