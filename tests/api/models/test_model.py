"""What a model counts against the memory budget."""

from __future__ import annotations

from support.fake_models import a_pool

from fllm_api.models.model import SETTLING_SECONDS


def test_the_size_is_the_estimate_until_a_measurement_exceeds_it_or_has_settled() -> None:
    [model] = a_pool([100]).models
    assert (model.size, model.memory) == (100, 0)
    model.measure(60)
    assert (model.size, model.measured) == (100, 60)
    model.measure(130)
    assert model.size == 130
    model.measure(80)
    assert model.size == 130, "it may need that much again"
    [other] = a_pool([100]).models
    other.measure(0, SETTLING_SECONDS)
    assert other.size == 100
    other.measure(60, SETTLING_SECONDS)
    assert other.size == 60
