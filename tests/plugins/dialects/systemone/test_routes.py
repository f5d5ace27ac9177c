"""`/v1/systemone` and `/v1/decisions` over ASGI, with known log-probabilities."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from support.api_fakes import Recorder, ask, backend_of, error_of, spell
from support.dialect_servers import a_dialect_server

from fllm.values import EngineOutput, GenerateRequest
from fllm_api.app_state import AppState

QUESTIONS: Any = {
    "urgent": {"type": "noul", "instructions": "Urgent?"},
    "team": {"type": "choice", "criteria": {"billing": "money", "sales": None}},
    "mood": {"type": "score", "criteria": ["calm", "cross", "angry"]},
}


def a_decider() -> AppState:
    """Return a server whose model gives 0.6 and 0.2 to A and B, and 0.1, 0.1 and 0.2 to 0, 1 and 2."""
    server = a_dialect_server("systemone")
    known = {"A": 0.6, "B": 0.2, "0": 0.1, "1": 0.1, "2": 0.2}
    backend = backend_of(server)
    backend.given_logprobs = {spell(server.tokenizer, text): math.log(p) for text, p in known.items()}
    backend.steps = [[spell(server.tokenizer, "A")]]
    return server


SERVER = a_decider()


@pytest.fixture
def server() -> AppState:
    """Return a server that has had no requests."""
    backend_of(SERVER).prompts.clear()
    return SERVER


def post(server: AppState, path: str = "/v1/systemone", **body: Any) -> httpx.Response:
    return ask(server, "POST", path, json=body)


def test_answers_have_the_probabilities_of_their_labels(server: AppState) -> None:
    found = post(server, state={"text": "charged twice"}, questions=QUESTIONS).json()
    assert list(found["answers"]) == ["urgent", "team", "mood"]
    urgent, team, mood = found["answers"].values()
    assert urgent == {"type": "noul", "noul": pytest.approx(0.75)}
    assert team == {
        "type": "choice",
        "choice": "billing",
        "probabilities": {"billing": pytest.approx(0.75), "sales": pytest.approx(0.25)},
        "confidence": pytest.approx(0.5),
    }
    assert mood == {
        "type": "score",
        "score": pytest.approx(1.25),
        "legend": {"0": "calm", "1": "cross", "2": "angry"},
        "probabilities": {"0": pytest.approx(0.25), "1": pytest.approx(0.25), "2": pytest.approx(0.5)},
        "confidence": pytest.approx(0.25),
    }
    assert found["model"] == "org/fake"
    assert found["diagnostics"]["urgent"] == {"label_mass": pytest.approx(0.8), "argmax_is_label": True}
    assert found["diagnostics"]["mood"] == {"label_mass": pytest.approx(0.4), "argmax_is_label": False}


def test_each_question_is_a_chat_that_begins_with_the_state(server: AppState) -> None:
    recorder = Recorder()
    server = a_dialect_server("systemone", collectors=(recorder,), tokenizer=server.tokenizer)
    found = post(server, state="charged twice", questions=QUESTIONS, instructions="Be fair.").json()
    prompts = [
        server.tokenizer.decode(each.token_ids, skip_special_tokens=False)
        for each in backend_of(server).prompts
    ]
    assert len(prompts) == 3
    assert all(text.startswith("<system>Be fair.<user>charged twice\n\n") for text in prompts)
    assert all(text.endswith("only.low<assistant>") for text in prompts), "the lowest effort"
    assert "A. billing: money\nB. sales\n" in prompts[1]
    assert "0. calm\n1. cross\n2. angry\n" in prompts[2]
    assert {each.sampling.max_tokens for each in backend_of(server).prompts} == {1}
    assert found["usage"] == {"input_tokens": sum(map(len, prompts)), "output_tokens": 0}
    [record] = recorder.requests
    assert (record.prompt_tokens, record.path) == (sum(map(len, prompts)), "/v1/systemone")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"questions": QUESTIONS}, "state"),
        ({"state": " ", "questions": QUESTIONS}, "state"),
        ({"state": 5, "questions": QUESTIONS}, "state"),
        ({"state": "x" * 600, "questions": QUESTIONS}, "state"),
        ({"state": "x"}, "questions"),
        ({"state": "x", "questions": {}}, "questions"),
        ({"state": "x", "questions": {str(i): QUESTIONS["urgent"] for i in range(65)}}, "questions"),
        ({"state": "x", "questions": {"a": {"type": "box"}}}, "questions[...].type"),
        ({"state": "x", "questions": {"a": {"type": "choice", "criteria": {}}}}, "questions[...].criteria"),
        (
            {"state": "x", "questions": {"a": {"type": "score", "criteria": {"x": 1}}}},
            "questions[...].criteria",
        ),
        ({"state": "x", "questions": {"a": {"type": "noul", "criteria": {"maybe": "x"}}}}, None),
        ({"state": "x", "questions": {"a": {**QUESTIONS["urgent"], "weight": 2}}}, None),
        ({"state": "x", "questions": QUESTIONS, "assets": {"a": {"type": "image"}}}, "assets"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_requests_name_the_field(server: AppState, body: dict[str, Any], param: str | None) -> None:
    response = post(server, **body)
    assert response.status_code == 400, response.text
    found = response.json()
    assert found["detail"] == found["error"]["message"]
    if param is not None:
        assert found["error"]["param"] == param
    assert backend_of(server).prompts == []


def test_more_options_than_labels_are_too_many(server: AppState) -> None:
    criteria = {str(i): None for i in range(27)}
    response = post(server, state="x", questions={"a": {"type": "choice", "criteria": criteria}})
    assert "can have 26 options with this model" in response.json()["detail"]


def test_a_backend_without_such_log_probabilities_is_named() -> None:
    server = a_decider()
    backend_of(server).steps = [[]]
    response = post(server, state="x", questions=QUESTIONS)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_model")


def test_openais_decisions_are_a_list(server: AppState) -> None:
    questions = [
        {"type": "predicate", "name": "urgent", "instructions": "It is urgent."},
        {"type": "choice", "instructions": "Team?", "choices": [{"value": "a"}, {"value": False}]},
        {"type": "score", "instructions": "Mood?", "levels": [{"label": "calm"}, {"label": "angry"}]},
    ]
    found = post(server, "/v1/decisions", model="m", input="charged twice", questions=questions).json()
    assert found["answers"] == [
        {"type": "predicate", "name": "urgent", "probability": pytest.approx(0.75)},
        {
            "type": "choice",
            "name": None,
            "choice": "a",
            "probabilities": [
                {"value": "a", "probability": pytest.approx(0.75)},
                {"value": False, "probability": pytest.approx(0.25)},
            ],
            "confidence": pytest.approx(0.5),
        },
        {
            "type": "score",
            "name": None,
            "score": pytest.approx(0.5),
            "probabilities": [
                {"value": 0, "label": "calm", "probability": pytest.approx(0.5)},
                {"value": 1, "label": "angry", "probability": pytest.approx(0.5)},
            ],
            "confidence": pytest.approx(0.0),
        },
    ]
    usage = found["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] > 0
    assert usage["input_tokens_details"]["cached_tokens"] == 3
    empty = post(server, "/v1/decisions", model="m", input="", questions=questions)
    assert (empty.status_code, error_of(empty)["param"]) == (400, "input")


@pytest.mark.parametrize(("length", "order"), [(9, ["start", "start"]), (300, ["start", "end"])])
def test_the_first_question_computes_a_long_state_for_the_others(
    server: AppState, length: int, order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, steps = backend_of(server), list[str]()
    generate = backend.generate

    async def recorded(request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        steps.append("start")
        try:
            async for output in generate(request):
                yield output
        finally:
            steps.append("end")

    monkeypatch.setattr(backend, "generate", recorded)
    found = post(server, state="a" * length, questions=QUESTIONS).json()
    assert steps[:2] == order
    assert list(found["answers"]) == list(QUESTIONS)
    assert found["answers"]["mood"]["score"] == pytest.approx(1.25)
    assert found["usage"]["input_tokens"] == sum(len(each.token_ids) for each in backend.prompts)
    assert len(backend.prompts) == len(QUESTIONS)


def test_a_state_that_is_too_long_is_read_once(server: AppState, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = type(server.tokenizer).encode

    def counted(tokenizer: Any, text: str, **options: Any) -> list[int]:
        encoded.append(len(text))
        return encode(tokenizer, text, **options)

    monkeypatch.setattr(type(server.tokenizer), "encode", counted)
    response = post(server, state="a" * 600, questions=QUESTIONS)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == ("state", "context_length_exceeded")
    assert error["message"].endswith("length of the state.")
    assert sum(length > 600 for length in encoded) == 1
