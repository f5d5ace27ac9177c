import logging

import pytest
from msgspec.structs import replace
from tests.api.cli.test_settings import settings

from fllm.values import SamplingDefaults
from fllm_api.cli.model_loader import choose_defaults

OF_MODEL = SamplingDefaults(temperature=0.6, top_k=20)


def test_the_models_own_sampling_defaults_are_used_unless_an_option_replaces_them() -> None:
    made = replace(settings("acme/model"), sampling_overrides=SamplingDefaults())
    assert choose_defaults(made, OF_MODEL) == OF_MODEL
    assert choose_defaults(replace(made, sampling=SamplingDefaults(top_p=0.9)), OF_MODEL) == SamplingDefaults(
        top_p=0.9
    )


def test_overrides_replace_single_values(caplog: pytest.LogCaptureFixture) -> None:
    made = settings("acme/model", "--override-generation-config", '{"top_k": 5, "max_new_tokens": 7}')
    with caplog.at_level(logging.INFO, "fllm.server"):
        chosen = choose_defaults(made, OF_MODEL)
    assert chosen == SamplingDefaults(temperature=0.6, top_k=5, max_tokens=7)
    assert "sampling defaults of requests: temperature 0.6, top_k 5, max_tokens 7" in caplog.text
