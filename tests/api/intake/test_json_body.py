from typing import Any

import pytest

from fllm import RequestError
from fllm_api.intake.json_body import decode_body


@pytest.mark.parametrize("half", [r"\ud83d", r"\ude00"])
def test_half_of_a_character_is_named(half: str) -> None:
    with pytest.raises(RequestError, match="half of a surrogate pair, ") as raised:
        decode_body(f'{{"prompt": "a{half}b"}}'.encode(), dict[str, Any])
    assert raised.value.message.endswith(half)


def test_a_whole_character_is_read() -> None:
    assert decode_body(rb'["\ud83d\ude00"]', list[str]) == ["😀"]
