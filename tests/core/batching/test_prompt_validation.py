import pytest

from fllm.batching.prompt_validation import check_request
from fllm.errors import ContextTooLong, RequestError
from fllm.values import GenerateRequest, ModelCard, SamplingParams

CARD = ModelCard(tokenizer="", max_model_len=4, runtime={"vocab_size": 10})


def request(*token_ids: int, **sampling: object) -> GenerateRequest:
    return GenerateRequest("r", list(token_ids), SamplingParams(max_tokens=1, **sampling))  # type: ignore[arg-type]


def test_a_prompt_that_leaves_room_for_a_token_passes():
    check_request(request(0, 9, 5, logit_bias={9: 1.0}, stop_token_ids=(0,)), CARD)


def test_an_empty_prompt_is_rejected():
    with pytest.raises(RequestError, match="empty"):
        check_request(request(), CARD)


def test_a_prompt_that_fills_the_context_is_rejected_quoting_both_lengths():
    with pytest.raises(ContextTooLong, match=r"length is 4 tokens.* has 4 tokens") as caught:
        check_request(request(1, 2, 3, 4), CARD)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("refused", "param"),
    [
        (request(10), "prompt"),
        (request(-1), "prompt"),
        (request(1, logit_bias={10: 1.0}), "logit_bias"),
        (request(1, stop_token_ids=(11,)), "stop_token_ids"),
    ],
)
def test_ids_outside_the_vocabulary_are_rejected(refused: GenerateRequest, param: str):
    with pytest.raises(RequestError, match="ids are 0 to 9") as caught:
        check_request(refused, CARD)
    assert caught.value.param == param


def test_a_card_that_is_silent_on_its_vocabulary_still_bounds_the_ids():
    with pytest.raises(RequestError):
        check_request(request(2**40), ModelCard(tokenizer="", max_model_len=4))
