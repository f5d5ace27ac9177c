import logging

import pytest

from fllm.batching.limits import DOUBLING_CONTEXT, BatchLimits, context_length
from fllm.config import BackendConfig
from fllm.errors import ConfigError
from fllm.values import ModelCard

CARD = ModelCard(tokenizer="", max_model_len=100)


def config(**options: int) -> BackendConfig:
    return BackendConfig(model="m", **options)  # type: ignore[arg-type]


def test_the_configuration_wins_over_the_defaults():
    limits = BatchLimits().with_config(config(max_num_seqs=3, max_num_batched_tokens=9))
    assert (limits.max_num_seqs, limits.max_num_batched_tokens) == (3, 9)


@pytest.mark.parametrize(
    ("options", "seqs", "tokens"),
    [({}, 64, 512), ({"max_num_seqs": 1000}, 1000, 1000), ({"max_num_batched_tokens": 8}, 8, 8)],
)
def test_a_default_gives_way_to_the_number_that_was_given(options: dict[str, int], seqs: int, tokens: int):
    limits = BatchLimits().with_config(config(**options))
    assert (limits.max_num_seqs, limits.max_num_batched_tokens) == (seqs, tokens)


def test_a_batch_of_a_given_size_is_all_for_prompts_wherever_their_tokens_stand():
    limits = BatchLimits().with_config(config(max_num_batched_tokens=256))
    assert (limits.step_prefill_budget(200, solo=False), limits.token_cost(4000)) == (200, 1)


def test_otherwise_a_token_costs_more_the_longer_its_context():
    limits = BatchLimits(prefill_budget=48).with_config(config(max_num_seqs=8))
    assert (limits.step_prefill_budget(200, solo=False), limits.step_prefill_budget(7, solo=True)) == (48, 7)
    assert [limits.token_cost(position) for position in (0, DOUBLING_CONTEXT, 3 * DOUBLING_CONTEXT)] == [
        1,
        2,
        4,
    ]


@pytest.mark.parametrize(("seqs", "tokens"), [(9, 8), (0, 8)])
def test_contradicting_limits_are_rejected_quoting_both(seqs: int, tokens: int):
    with pytest.raises(ConfigError, match=f"tokens is {tokens} and --max-num-seqs is {seqs}"):
        BatchLimits().with_config(config(max_num_seqs=seqs, max_num_batched_tokens=tokens))


@pytest.mark.parametrize("length", [40, 100])
def test_the_context_may_be_lowered(length: int):
    assert context_length(CARD, config(max_model_len=length), 1000) == length


def test_the_context_may_not_be_raised():
    with pytest.raises(ConfigError, match="is 101 and the model's own is 100"):
        context_length(CARD, config(max_model_len=101), 1000)


def test_a_small_cache_lowers_the_context_and_logs_it(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert context_length(CARD, config(), 64) == 64
    assert "64 tokens instead of 100" in caplog.text


def test_a_cache_without_blocks_is_rejected():
    with pytest.raises(ConfigError, match="no memory"):
        context_length(CARD, config(), 0)
