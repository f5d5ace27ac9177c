import pytest

from fllm.errors import ModelError
from fllm.model.generation_config import sampling_defaults
from fllm.values import SamplingDefaults


def test_the_keys_of_sampling_are_read_and_others_ignored() -> None:
    content = {"temperature": 0.6, "top_k": 20, "max_new_tokens": 9, "bos_token_id": 1, "do_sample": True}
    expected = SamplingDefaults(temperature=0.6, top_k=20, max_tokens=9)
    assert sampling_defaults(content, "file") == expected


def test_a_file_that_disables_sampling_has_no_defaults() -> None:
    assert sampling_defaults({"do_sample": False, "temperature": -1}, "file") == SamplingDefaults()


def test_a_value_out_of_range_is_an_error_that_names_the_file() -> None:
    with pytest.raises(ModelError, match=r"file: .*top_p"):
        sampling_defaults({"top_p": 2}, "file")
