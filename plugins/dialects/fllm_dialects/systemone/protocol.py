"""Requests and responses of `/v1/systemone`, in the format of TypeSafe's Jev."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from fllm import RequestError
from fllm_dialects.systemone.questions import MAX_OPTIONS, Option, Question, Reading
from fllm_dialects.systemone.reader import Answers

MAX_QUESTIONS = 64
Content = str | dict[str, Any] | list[Any]
"""Text, or JSON that is read as text."""


class NoulCriteria(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What counts as yes, and what as no."""

    true: Content | None = None
    false: Content | None = None


class NoulQuestion(Struct, frozen=True, kw_only=True, tag="noul", forbid_unknown_fields=True):
    """A question of yes or no, or a statement that may be true."""

    instructions: Content | None = None
    criteria: NoulCriteria | str | None = None
    """A text is what counts as yes."""


class ChoiceQuestion(Struct, frozen=True, kw_only=True, tag="choice", forbid_unknown_fields=True):
    """A question with one of several answers."""

    instructions: Content | None = None
    criteria: Annotated[dict[str, Content | None], Meta(min_length=1, max_length=MAX_OPTIONS)]
    """Names of the options, and their descriptions."""


class ScoreQuestion(Struct, frozen=True, kw_only=True, tag="score", forbid_unknown_fields=True):
    """A question with a place on a scale as its answer."""

    instructions: Content | None = None
    criteria: Annotated[list[Content], Meta(min_length=1, max_length=MAX_OPTIONS)]
    """Descriptions of the levels, from 0 on."""


class SystemOneRequest(Struct, frozen=True, kw_only=True):
    """A state, and questions about it."""

    state: Content
    questions: Annotated[
        dict[str, NoulQuestion | ChoiceQuestion | ScoreQuestion], Meta(min_length=1, max_length=MAX_QUESTIONS)
    ]
    """Questions by the names that their answers have."""
    model: str | None = None
    instructions: str | None = None
    """A system message that precedes the state, as in vLLM."""
    assets: dict[str, Any] | None = None
    images: list[Any] | None = None


class NoulAnswer(Struct, frozen=True, kw_only=True, tag="noul"):
    """The probability of yes."""

    noul: float


class ChoiceAnswer(Struct, frozen=True, kw_only=True, tag="choice"):
    """The most likely option, and the probability of each."""

    choice: str
    probabilities: dict[str, float]
    confidence: float
    """1 if one option is certain, 0 if all are equally likely."""


class ScoreAnswer(Struct, frozen=True, kw_only=True, tag="score"):
    """The expected level, and the probability of each level by its number."""

    score: float
    legend: dict[str, Content]
    probabilities: dict[str, float]
    confidence: float


class SystemOneUsage(Struct, frozen=True):
    """Tokens of all prompts, and of generated text: there is none."""

    input_tokens: int
    output_tokens: int


class Diagnostics(Struct, frozen=True, kw_only=True):
    """Whether the model answered as it was asked to, as in vLLM."""

    label_mass: float
    """Probability of all options together, among all tokens. A low one means another reply was likelier."""
    argmax_is_label: bool
    """Whether the most likely token stands for an option."""


class SystemOneResponse(Struct, frozen=True, kw_only=True):
    """The answers, by the names of their questions."""

    id: str
    model: str
    answers: dict[str, NoulAnswer | ChoiceAnswer | ScoreAnswer]
    usage: SystemOneUsage
    diagnostics: dict[str, Diagnostics]


AnyQuestion = NoulQuestion | ChoiceQuestion | ScoreQuestion


def content_text(content: Content | None) -> str:
    """Return text as it is, and JSON as text."""
    if content is None:
        return ""
    return content if isinstance(content, str) else msgspec.json.encode(content).decode()


def read_questions(body: SystemOneRequest) -> list[Question]:
    """Return the questions. Raise `RequestError` for what can't be honoured."""
    for name in ("assets", "images"):
        if getattr(body, name):
            raise RequestError(f"`{name}` are not supported: the state is text or JSON", param=name)
    if "" in body.questions:
        raise RequestError("the name of a question is empty", param="questions")
    return [_question(name, question) for name, question in body.questions.items()]


def _question(name: str, question: AnyQuestion) -> Question:
    instructions = content_text(question.instructions)
    match question:
        case NoulQuestion(criteria=criteria):
            if not isinstance(criteria, NoulCriteria):
                criteria = NoulCriteria(true=criteria)
            if not instructions and criteria.true is None:
                raise RequestError(
                    f"the question {name!r} has neither instructions nor criteria",
                    param=f"questions.{name}.instructions",
                )
            options = (Option("", content_text(criteria.true)), Option("", content_text(criteria.false)))
            return Question("noul", instructions, options)
        case ChoiceQuestion(criteria=criteria):
            return Question(
                "choice",
                instructions,
                tuple(Option(key, content_text(each)) for key, each in criteria.items()),
            )
        case ScoreQuestion(criteria=levels):
            return Question("score", instructions, tuple(Option(content_text(each)) for each in levels))


def new_response(body: SystemOneRequest, answers: Answers, response_id: str) -> SystemOneResponse:
    """Return the response."""
    named = dict(zip(body.questions, answers.readings, strict=True))
    return SystemOneResponse(
        id=response_id,
        model=answers.model,
        answers={name: _answer(body.questions[name], reading) for name, reading in named.items()},
        usage=SystemOneUsage(answers.input_tokens, 0),
        diagnostics={
            name: Diagnostics(label_mass=reading.label_mass, argmax_is_label=reading.argmax_is_label)
            for name, reading in named.items()
        },
    )


def _answer(question: AnyQuestion, reading: Reading) -> NoulAnswer | ChoiceAnswer | ScoreAnswer:
    match question:
        case NoulQuestion():
            return NoulAnswer(noul=reading.probabilities[0])
        case ChoiceQuestion(criteria=criteria):
            names = list(criteria)
            return ChoiceAnswer(
                choice=names[reading.best],
                probabilities=dict(zip(names, reading.probabilities, strict=True)),
                confidence=reading.confidence,
            )
        case ScoreQuestion(criteria=levels):
            return ScoreAnswer(
                score=reading.score,
                legend={str(level): content for level, content in enumerate(levels)},
                probabilities={str(level): each for level, each in enumerate(reading.probabilities)},
                confidence=reading.confidence,
            )
