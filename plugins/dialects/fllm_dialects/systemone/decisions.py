"""Requests and responses of `/v1/decisions`, in the format of OpenAI's Decisions API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from fllm import RequestError
from fllm_dialects.systemone.questions import MAX_OPTIONS, Option, Question, Reading
from fllm_dialects.systemone.reader import Answers

MAX_QUESTIONS = 200


class InputPart(Struct, frozen=True, kw_only=True):
    """A part of a message: only text is supported."""

    type: str
    text: str | None = None


class InputMessage(Struct, frozen=True, kw_only=True):
    """A message of the conversation that is evaluated."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputPart]
    type: Literal["message"] = "message"


class Predicate(Struct, frozen=True, kw_only=True, tag="predicate"):
    """A statement that may be true."""

    instructions: str
    name: str | None = None


class ChoiceOption(Struct, frozen=True, kw_only=True):
    """An option. The text "true" and the value true are not the same."""

    value: str | bool
    description: str = ""


class Choice(Struct, frozen=True, kw_only=True, tag="choice"):
    """A question with one of several answers."""

    instructions: str
    choices: Annotated[list[ChoiceOption], Meta(min_length=2, max_length=MAX_OPTIONS)]
    name: str | None = None


class Level(Struct, frozen=True, kw_only=True):
    """A level of a scale."""

    label: str
    description: str = ""


class Score(Struct, frozen=True, kw_only=True, tag="score"):
    """A question with a place on a scale as its answer."""

    instructions: str
    levels: Annotated[list[Level], Meta(min_length=2, max_length=MAX_OPTIONS)]
    name: str | None = None


class DecisionRequest(Struct, frozen=True, kw_only=True):
    """A text or a conversation, and questions about it."""

    model: str
    input: str | list[InputMessage]
    questions: Annotated[list[Predicate | Choice | Score], Meta(min_length=1, max_length=MAX_QUESTIONS)]
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None


class PredicateAnswer(Struct, frozen=True, kw_only=True, tag="predicate"):
    """The probability that the statement is true."""

    name: str | None
    probability: float


class ChoiceProbability(Struct, frozen=True, kw_only=True):
    """The probability of an option."""

    value: str | bool
    probability: float


class ChoiceDecision(Struct, frozen=True, kw_only=True, tag="choice"):
    """The most likely option."""

    name: str | None
    choice: str | bool
    probabilities: list[ChoiceProbability]
    confidence: float


class LevelProbability(Struct, frozen=True, kw_only=True):
    """The probability of a level, and its number."""

    value: int
    label: str
    probability: float


class ScoreDecision(Struct, frozen=True, kw_only=True, tag="score"):
    """The expected level."""

    name: str | None
    score: float
    probabilities: list[LevelProbability]
    confidence: float


class InputTokensDetails(Struct, frozen=True, kw_only=True):
    """Tokens of the prefix cache."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(Struct, frozen=True, kw_only=True):
    """There is no reasoning."""

    reasoning_tokens: int = 0


class DecisionUsage(Struct, frozen=True, kw_only=True):
    """Tokens of all prompts. Nothing is generated."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int = 0
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class DecisionResponse(Struct, frozen=True, kw_only=True):
    """The answers, in the order of the questions."""

    model: str
    answers: list[PredicateAnswer | ChoiceDecision | ScoreDecision]
    usage: DecisionUsage


def input_text(given: str | list[InputMessage]) -> str:
    """Return the input as text. Raise `RequestError` for parts that are not text."""
    if isinstance(given, str):
        return given
    texts = [(message.role, _message_text(message, at)) for at, message in enumerate(given)]
    if all(role == "user" for role, _ in texts):
        return "\n\n".join(text for _, text in texts)
    return "\n\n".join(f"{role}: {text}" for role, text in texts)


def read_questions(body: DecisionRequest) -> list[Question]:
    """Return the questions. Raise `RequestError` if two options have the same value."""
    return [_question(question, at) for at, question in enumerate(body.questions)]


def new_response(body: DecisionRequest, answers: Answers) -> DecisionResponse:
    """Return the response."""
    return DecisionResponse(
        model=answers.model,
        answers=[_answer(*each) for each in zip(body.questions, answers.readings, strict=True)],
        usage=DecisionUsage(
            input_tokens=answers.input_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=answers.cached_tokens),
            total_tokens=answers.input_tokens,
        ),
    )


def _message_text(message: InputMessage, at: int) -> str:
    if isinstance(message.content, str):
        return message.content
    for i, part in enumerate(message.content):
        if part.text is None:
            raise RequestError(
                f"`input[{at}].content[{i}]` has the type {part.type!r}; only text is supported",
                param=f"input[{at}].content[{i}]",
            )
    return "\n".join(part.text or "" for part in message.content)


def _question(question: Predicate | Choice | Score, at: int) -> Question:
    match question:
        case Predicate(instructions=instructions):
            return Question("noul", instructions, (Option(""), Option("")))
        case Choice(instructions=instructions, choices=choices):
            if len({(type(each.value), each.value) for each in choices}) < len(choices):
                raise RequestError("two choices have the same value", param=f"questions[{at}].choices")
            return Question(
                "choice",
                instructions,
                tuple(Option(_spell(each.value), each.description) for each in choices),
            )
        case Score(instructions=instructions, levels=levels):
            return Question(
                "score", instructions, tuple(Option(each.label, each.description) for each in levels)
            )


def _spell(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()


def _answer(
    question: Predicate | Choice | Score, reading: Reading
) -> PredicateAnswer | ChoiceDecision | ScoreDecision:
    probabilities = reading.probabilities
    match question:
        case Predicate(name=name):
            return PredicateAnswer(name=name, probability=probabilities[0])
        case Choice(name=name, choices=choices):
            return ChoiceDecision(
                name=name,
                choice=choices[reading.best].value,
                probabilities=[
                    ChoiceProbability(value=each.value, probability=probability)
                    for each, probability in zip(choices, probabilities, strict=True)
                ],
                confidence=reading.confidence,
            )
        case Score(name=name, levels=levels):
            return ScoreDecision(
                name=name,
                score=reading.score,
                probabilities=[
                    LevelProbability(value=at, label=each.label, probability=probability)
                    for at, (each, probability) in enumerate(zip(levels, probabilities, strict=True))
                ],
                confidence=reading.confidence,
            )
