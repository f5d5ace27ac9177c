"""From the log-probabilities of labels to an answer."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from fllm import RequestError
from fllm_dialects.systemone import decisions, protocol
from fllm_dialects.systemone.labels import Label
from fllm_dialects.systemone.questions import Option, Question, new_reading

A, B, C = Label("A", (1, 2)), Label("B", (3,)), Label("C", (4,))


def log(**probabilities: float) -> dict[int, float]:
    return {int(token[1:]): math.log(value) for token, value in probabilities.items()}


def test_the_spellings_of_a_label_are_summed_and_the_labels_normalised() -> None:
    reading = new_reading([A, B], log(t1=0.2, t2=0.1, t3=0.1), sampled=2)
    assert reading.probabilities == pytest.approx((0.75, 0.25))
    assert reading.label_mass == pytest.approx(0.4)
    assert reading.argmax_is_label
    assert (reading.best, reading.score) == (0, pytest.approx(0.25))
    assert not new_reading([A, B], log(t1=0.2, t2=0.1, t3=0.1), sampled=9).argmax_is_label


@pytest.mark.parametrize(
    ("probabilities", "confidence"), [((0.3, 0.3, 0.3), 0.0), ((0.6, 0.2, 0.2), 0.4), ((0.9, 0.0, 0.0), 1.0)]
)
def test_confidence_is_0_without_and_1_with_certainty(
    probabilities: tuple[float, ...], confidence: float
) -> None:
    labels = [Label("A", (1,)), B, C]
    logprobs = {
        token: math.log(each) if each else -math.inf
        for token, each in zip((1, 3, 4), probabilities, strict=True)
    }
    assert new_reading(labels, logprobs, sampled=1).confidence == pytest.approx(confidence)


def test_labels_without_any_probability_are_equally_likely() -> None:
    reading = new_reading([B, C], {3: -math.inf, 4: -math.inf}, sampled=7)
    assert reading.probabilities == (0.5, 0.5)
    assert (reading.label_mass, reading.confidence) == (0.0, 0.0)


def test_a_single_option_is_certain() -> None:
    reading = new_reading([B], log(t3=0.01), sampled=7)
    assert (reading.probabilities, reading.confidence) == ((1.0,), 1.0)


def test_a_question_lists_its_options_with_their_labels() -> None:
    question = Question("choice", "Which team?", (Option("billing", "invoices"), Option("other")))
    assert question.text([A, B]) == (
        "Which team?\nA. billing: invoices\nB. other\nAnswer with the label of one option only."
    )
    plain = Question("noul", "Is it urgent?", (Option(""), Option("")))
    assert plain.text([Label("Yes", (1,)), Label("No", (2,))]) == "Is it urgent?\nAnswer with Yes or No only."


def read(**questions: dict[str, Any]) -> list[Question]:
    body = msgspec.convert({"state": "s", "questions": questions}, protocol.SystemOneRequest)
    return protocol.read_questions(body)


def test_all_forms_of_criteria_are_read() -> None:
    noul, text, choice, score = read(
        a={
            "type": "noul",
            "instructions": {"task": "spam"},
            "criteria": {"true": ["ads"], "false": "others"},
        },
        b={"type": "noul", "criteria": "it is spam"},
        c={"type": "choice", "instructions": "pick", "criteria": {"x": None, "y": {"why": 1}}},
        d={"type": "score", "criteria": ["low", {"level": "high"}]},
    )
    assert noul == Question("noul", '{"task":"spam"}', (Option("", '["ads"]'), Option("", "others")))
    assert text == Question("noul", "", (Option("", "it is spam"), Option("")))
    assert choice == Question("choice", "pick", (Option("x"), Option("y", '{"why":1}')))
    assert score == Question("score", "", (Option("low"), Option('{"level":"high"}')))


@pytest.mark.parametrize(
    ("question", "name", "param"),
    [
        ({"type": "noul"}, "q", "questions.q.instructions"),
        ({"type": "noul", "instructions": "x"}, "", "questions"),
    ],
)
def test_a_question_without_content_or_name_is_rejected(
    question: dict[str, Any], name: str, param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        read(**{name: question})
    assert caught.value.param == param


def test_values_of_choices_are_told_apart_by_type() -> None:
    choices = [{"value": "true"}, {"value": True, "description": "really"}]
    body = msgspec.convert(
        {
            "model": "m",
            "input": "text",
            "questions": [{"type": "choice", "instructions": "i", "choices": choices}],
        },
        decisions.DecisionRequest,
    )
    [question] = decisions.read_questions(body)
    assert question.options == (Option("true"), Option("true", "really"))
    twice = msgspec.structs.replace(
        body,
        questions=[
            msgspec.structs.replace(body.questions[0], choices=[decisions.ChoiceOption(value="a")] * 2)
        ],
    )
    with pytest.raises(RequestError) as caught:
        decisions.read_questions(twice)
    assert caught.value.param == "questions[0].choices"


def test_a_conversation_is_read_as_text() -> None:
    messages = [
        decisions.InputMessage(role="system", content="be brief"),
        decisions.InputMessage(role="user", content=[decisions.InputPart(type="input_text", text="hi")]),
    ]
    assert decisions.input_text(messages) == "system: be brief\n\nuser: hi"
    assert decisions.input_text(messages[1:]) == "hi"
    image = decisions.InputMessage(role="user", content=[decisions.InputPart(type="input_image")])
    with pytest.raises(RequestError) as caught:
        decisions.input_text([image])
    assert caught.value.param == "input[0].content[0]"
