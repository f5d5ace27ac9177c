"""The openai backend, with upstream servers that send scripted bytes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.wire_server import (
    CLOSE,
    EVENT_STREAM,
    HANG,
    LAST_CHUNK,
    WireServer,
    chunk,
    error_response,
    event,
    full_response,
    scripted_server,
)

from fllm import (
    BackendConfig,
    BackendContext,
    BackendError,
    BackendUnavailable,
    ConfigError,
    Device,
    EngineOutput,
    GenerateRequest,
    ModelCard,
    RequestError,
    SamplingParams,
    TokenLogprob,
    UserError,
)
from fllm.constraints import AnyOf, Constraint, ConstString, Grammar, JsonSchema, Regex, TextUntil
from fllm.errors import ContextTooLong
from fllm.values import merge_outputs
from fllm_backends.openai import backend as backend_module
from fllm_backends.openai import client as client_module
from fllm_backends.openai.backend import OpenAIBackend, openai_backend

END, TURN = 257, 258
DONE = event(b"[DONE]")
GREEDY = SamplingParams(max_tokens=8, temperature=0.0)
Script = Iterable[Any]


def ids(text: str) -> list[int]:
    """Return the token ids of an ASCII text in the model of these tests."""
    alphabet = sorted(
        map(chr, [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100), *range(256, 324)])
    )
    return [alphabet.index(character) for character in text]


def choice(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    """One event with one choice."""
    return event({"choices": [{"index": 0, "text": text, "finish_reason": finish, **more}]})


def tokens(*token_ids: int, finish: str | None = None, **more: Any) -> bytes:
    """One event of a server that returns token ids."""
    return choice("?", finish, token_ids=list(token_ids), **more)


def named(*entries: tuple[int, float | None, dict[int, float]], finish: str | None = None) -> bytes:
    """One event of a server that returns token ids as names of log-probabilities."""
    logprobs = {
        "tokens": [f"token_id:{token}" for token, _, _ in entries],
        "token_logprobs": [logprob for _, logprob, _ in entries],
        "top_logprobs": [
            {f"token_id:{i}": value for i, value in top.items()} or None for _, _, top in entries
        ],
    }
    return choice("?", finish, logprobs=logprobs)


def stream(*events: bytes) -> Script:
    """A whole event stream, each event sent by itself."""
    return [EVENT_STREAM, *map(chunk, events), chunk(DONE) + LAST_CHUNK]


BY_IDS = stream(tokens(1, finish="length"))
BY_NAMES = stream(named((1, -0.5, {}), finish="length"))
BY_TEXT = stream(choice("a", "length"))


@contextmanager
def upstream(*responses: Script, probe: Script = BY_IDS, **model: Any) -> Iterator[WireServer]:
    """A server that responds to the probe, then to each request with the next script, repeating the last."""
    remaining = [probe, *responses]

    def script(body: dict[str, Any]) -> Iterable[Any]:
        return remaining.pop(0) if len(remaining) > 1 else remaining[0]

    listed = {"id": "theirs", "owned_by": "vllm", "max_model_len": 32} | model
    with scripted_server(script, full_response({"data": [listed]})) as server:
        yield server


def build(
    server: WireServer | str, directory: Path, max_model_len: int | None = None, **options: str
) -> OpenAIBackend:
    url = server if isinstance(server, str) else f"{server.url}/v1"
    config = BackendConfig(model=str(directory), max_model_len=max_model_len, options={"url": url, **options})
    made = openai_backend(config, BackendContext())
    assert isinstance(made, OpenAIBackend)
    return made


@asynccontextmanager
async def started(
    server: WireServer | str, directory: Path, max_model_len: int | None = None, **options: str
) -> AsyncIterator[tuple[OpenAIBackend, ModelCard]]:
    backend = build(server, directory, max_model_len, **options)
    try:
        yield backend, await backend.start()
    finally:
        await backend.stop()


def card_of(
    server: WireServer | str, directory: Path, max_model_len: int | None = None, **options: str
) -> ModelCard:
    async def start() -> ModelCard:
        async with started(server, directory, max_model_len, **options) as (_, card):
            return card

    return asyncio.run(start())


def outputs_of(
    server: WireServer,
    directory: Path,
    sampling: SamplingParams = GREEDY,
    constraint: Constraint | None = None,
    prompt: str = "hi",
    salt: str = "",
    **options: str,
) -> list[EngineOutput]:
    async def scenario() -> list[EngineOutput]:
        async with started(server, directory, **options) as (backend, _):
            request = GenerateRequest(
                "request-1", ids(prompt), sampling, constraint=constraint, cache_salt=salt
            )
            return [step async for step in backend.generate(request)]

    return asyncio.run(scenario())


def test_the_ids_of_the_server_are_handed_on(model: Path) -> None:
    with upstream(stream(tokens(1, 2), tokens(3), tokens(4, END, finish="stop"))) as server:
        steps = outputs_of(server, model)
    assert merge_outputs(steps) == EngineOutput(
        token_ids=[1, 2, 3, 4, END], finish_reason="stop", stop_token=END
    )


def test_ids_that_come_as_names_of_log_probabilities_are_read(model: Path) -> None:
    response = stream(named((1, -0.5, {}), (2, -1.0, {})), named((TURN, -0.1, {}), finish="stop"))
    with upstream(response, probe=BY_NAMES) as server:
        steps = outputs_of(server, model, SamplingParams(max_tokens=8, stop_token_ids=(TURN,)))
    assert merge_outputs(steps) == EngineOutput(token_ids=[1, 2, TURN], finish_reason="stop", stop_token=TURN)
    assert server.bodies[1]["logprobs"] == 0
    assert server.bodies[1]["return_tokens_as_token_ids"] is True


def test_text_becomes_ids_that_spell_it(model: Path) -> None:
    response = stream(
        choice("h\u00e9"), choice(""), choice("y<|turn|>"), choice("", "stop", stop_reason=TURN)
    )
    with upstream(response, probe=BY_TEXT, owned_by="somebody") as server:
        step = merge_outputs(outputs_of(server, model))
    spelled = [*ids("h\u00c3\u00a9y"), TURN]
    assert step.token_ids[: len(spelled)] == spelled
    assert (step.token_ids[len(spelled) :], step.finish_reason) == ([TURN], "stop")


def test_an_answer_that_the_maximum_ended_has_no_stop_token(model: Path) -> None:
    with upstream(stream(tokens(1, END, finish="length"))) as server:
        assert merge_outputs(outputs_of(server, model)) == EngineOutput(
            token_ids=[1, END], finish_reason="length"
        )


def test_an_end_token_that_is_to_be_ignored_is_no_stop_token(model: Path) -> None:
    with upstream(stream(tokens(1, END, finish="stop"))) as server:
        step = merge_outputs(outputs_of(server, model, SamplingParams(max_tokens=8, ignore_eos=True)))
    assert step.stop_token is None


def test_log_probabilities_of_answer_and_prompt_are_reported(model: Path) -> None:
    echo = named((7, None, {}), (8, -2.0, {8: -2.0, 9: -1.0}))
    response = stream(echo, named((1, -0.5, {1: -0.5, 2: -0.75, 3: -0.9}), finish="length"))
    with upstream(response) as server:
        steps = outputs_of(server, model, SamplingParams(max_tokens=1, logprobs=2, prompt_logprobs=2))
    assert server.bodies[1]["echo"] is True
    assert steps[0].prompt_logprobs == [None, TokenLogprob(8, -2.0, ((9, -1.0), (8, -2.0)))]
    assert steps[-1].logprobs == [TokenLogprob(1, -0.5, ((1, -0.5), (2, -0.75)))]
    assert merge_outputs(steps).token_ids == [1]


def test_a_sampled_token_that_is_none_of_the_likeliest_is_not_listed_among_them(model: Path) -> None:
    with upstream(stream(named((9, -5.0, {9: -5.0, 1: -0.5, 2: -0.75}), finish="length"))) as server:
        [step] = outputs_of(server, model, SamplingParams(max_tokens=1, logprobs=2))
    assert step.logprobs == [TokenLogprob(9, -5.0, ((1, -0.5), (2, -0.75)))]


def test_log_probabilities_that_name_no_token_end_the_request(model: Path) -> None:
    odd = {"tokens": ["word"], "token_logprobs": [-1.0]}
    with (
        upstream(stream(choice("word", "stop", logprobs=odd))) as server,
        pytest.raises(BackendError, match="malformed log-probabilities"),
    ):
        outputs_of(server, model, SamplingParams(max_tokens=1, logprobs=0))


@pytest.mark.parametrize(
    ("owner", "salt", "sent"), [("vllm", "a", "a"), ("vllm", "", None), ("llamacpp", "a", None)]
)
def test_the_cache_salt_is_forwarded_to_servers_that_support_it(
    model: Path, owner: str, salt: str, sent: str | None
) -> None:
    with upstream(BY_IDS, owned_by=owner) as server:
        outputs_of(server, model, salt=salt)
    assert server.bodies[1].get("cache_salt") == sent


@pytest.mark.parametrize(("owner", "supported"), [("vllm", True), ("furiosa-ai", False), ("me", False)])
def test_the_card_tells_whether_the_server_supports_cache_salts(
    model: Path, owner: str, supported: bool
) -> None:
    with upstream(owned_by=owner) as server:
        assert card_of(server, model).supports_cache_salt is supported


def test_the_cached_tokens_of_the_usage_are_reported(model: Path) -> None:
    usage = event(
        {"choices": [], "usage": {"prompt_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}}
    )
    with upstream(stream(tokens(1, finish="stop"), usage)) as server:
        [step] = outputs_of(server, model)
    assert (step.token_ids, step.cached_tokens) == ([1], 1)
    assert server.bodies[1]["stream_options"] == {"include_usage": True}


def test_tokens_that_come_together_leave_together(model: Path) -> None:
    response = [
        EVENT_STREAM + chunk(tokens(1) + tokens(2)),
        chunk(tokens(3, finish="stop") + DONE) + LAST_CHUNK,
    ]
    with upstream(response) as server:
        assert [step.token_ids for step in outputs_of(server, model)] == [[1, 2], [3]]


def test_an_event_may_come_in_pieces_with_comments_between(model: Path) -> None:
    raw = b": still here\r\n\r\n" + tokens(1).replace(b"\n", b"\r\n") + tokens(2, finish="stop") + DONE
    pieces = [chunk(raw[i : i + 7]) for i in range(0, len(raw), 7)]
    with upstream([EVENT_STREAM, *pieces, LAST_CHUNK]) as server:
        assert merge_outputs(outputs_of(server, model)).token_ids == [1, 2]


def test_a_request_has_all_sampling_fields(model: Path) -> None:
    sampling = SamplingParams(
        max_tokens=5,
        min_tokens=2,
        temperature=0.7,
        top_p=0.8,
        top_k=3,
        min_p=0.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        repetition_penalty=1.1,
        logit_bias={3: -1.5},
        seed=7,
        stop_token_ids=(9,),
        ignore_eos=True,
    )
    with upstream(stream(tokens(1, finish="stop"))) as server:
        outputs_of(server, model, sampling)
    assert server.bodies[1] == {
        "model": "theirs",
        "prompt": ids("hi"),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "max_tokens": 5,
        "min_tokens": 2,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 3,
        "min_p": 0.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "repetition_penalty": 1.1,
        "logit_bias": {"3": -1.5},
        "seed": 7,
        "stop_token_ids": [9],
        "ignore_eos": True,
    }


def test_defaults_are_sent_too_since_the_server_may_have_others(model: Path) -> None:
    with upstream(BY_IDS) as server:
        outputs_of(server, model, SamplingParams(max_tokens=5))
    sent = {
        key: server.bodies[1][key] for key in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    }
    assert sent == {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


def test_llama_cpp_gets_its_own_field_names(model: Path) -> None:
    described = {"owned_by": "llamacpp", "max_model_len": None, "meta": {"n_ctx": 48}}
    with upstream(probe=BY_TEXT, **described) as server:
        outputs_of(server, model, SamplingParams(max_tokens=5, repetition_penalty=1.1, top_k=4))
        card = card_of(server, model)
    body = server.bodies[1]
    assert (body["repeat_penalty"], body["repeat_last_n"], body["top_k"]) == (1.1, 7, 4)
    assert not {"repetition_penalty", "min_tokens", "return_token_ids", "skip_special_tokens"} & body.keys()
    assert (card.max_model_len, card.runtime["receive"]) == (48, "text")


@pytest.mark.parametrize(
    ("owner", "sampling", "param"),
    [
        ("somebody", SamplingParams(max_tokens=1, top_k=5), "top_k"),
        ("somebody", SamplingParams(max_tokens=1, min_p=0.5), "min_p"),
        ("somebody", SamplingParams(max_tokens=1, ignore_eos=True), "ignore_eos"),
        ("somebody", SamplingParams(max_tokens=1, logprobs=0), "logprobs"),
        ("llamacpp", SamplingParams(max_tokens=1, stop_token_ids=(1,)), "stop_token_ids"),
        ("llamacpp", SamplingParams(max_tokens=1, allowed_token_ids=(1,)), "allowed_token_ids"),
        ("vllm", SamplingParams(max_tokens=1, bad_words_token_ids=((1,),)), "bad_words"),
        ("llamacpp", SamplingParams(max_tokens=1, min_tokens=1), "min_tokens"),
        ("llamacpp", SamplingParams(max_tokens=1, prompt_logprobs=0), "logprobs"),
        ("furiosa-ai", SamplingParams(max_tokens=1, seed=1), "seed"),
        ("furiosa-ai", SamplingParams(max_tokens=1, presence_penalty=0.1), "presence_penalty"),
        ("furiosa-ai", SamplingParams(max_tokens=1, logit_bias={1: 1.0}), "logit_bias"),
        ("furiosa-ai", SamplingParams(max_tokens=1, prompt_logprobs=0), "echo"),
    ],
)
def test_what_the_server_does_not_offer_is_refused_by_name(
    model: Path, owner: str, sampling: SamplingParams, param: str
) -> None:
    with upstream(owned_by=owner) as server, pytest.raises(RequestError) as refused:
        outputs_of(server, model, sampling)
    assert (refused.value.param, refused.value.code) == (param, "unsupported_parameter")
    assert len(server.bodies) == 1, "only the probe"


def test_nothing_is_asked_where_nothing_is_to_be_generated(model: Path) -> None:
    with upstream() as server:
        assert outputs_of(server, model, SamplingParams(max_tokens=0)) == [
            EngineOutput(finish_reason="length")
        ]
    assert len(server.bodies) == 1, "only the probe"


def test_the_maximum_is_cut_to_the_context(model: Path) -> None:
    with upstream(BY_IDS) as server:
        outputs_of(server, model, SamplingParams(max_tokens=1000))
        with pytest.raises(ContextTooLong):
            outputs_of(server, model, prompt="x" * 32)
    assert server.bodies[1]["max_tokens"] == 30


def test_a_server_that_takes_no_ids_gets_text(model: Path) -> None:
    with upstream(
        BY_TEXT, BY_TEXT, probe=[error_response("400 Bad Request", "prompt must be a string")]
    ) as server:
        outputs_of(server, model)
    assert [body["prompt"] for body in server.bodies] == [ids("Hello"), "Hello", "hi"]
    assert server.bodies[2]["skip_special_tokens"] is False


@pytest.mark.parametrize(("send", "prompt"), [("text", "Hello"), ("ids", ids("Hello"))])
def test_how_prompts_are_sent_can_be_said(model: Path, send: str, prompt: Any) -> None:
    with upstream() as server:
        card_of(server, model, send=send)
    assert server.bodies[0]["prompt"] == prompt


def test_a_key_and_the_id_of_the_request_go_with_it(model: Path) -> None:
    with upstream(BY_IDS) as server:
        outputs_of(server, model, api_key="secret")
    assert all("authorization: bearer secret" in head.lower() for head in server.heads)
    assert "x-request-id: request-1" in server.heads[-1].lower()


def test_the_card_combines_server_and_model(model: Path) -> None:
    with upstream(artifact_id="these") as server:
        card = card_of(server, model)
    assert (card.max_model_len, card.eos_token_ids, card.artifact_id) == (32, (END,), "these")
    assert (card.tokenizer, card.defaults.top_k, card.grammar) == (str(model), 20, None)
    assert card.runtime == {"server": "vllm", "model": "theirs", "receive": "token_ids"}


def test_recommendations_that_the_server_can_not_follow_are_left_out(model: Path) -> None:
    with upstream(owned_by="somebody") as server:
        defaults = card_of(server, model).defaults
    assert (defaults.top_k, defaults.top_p, defaults.temperature) == (None, 0.9, 0.5)


def test_the_context_length_comes_from_the_server_the_model_or_the_user(model: Path) -> None:
    with upstream(max_model_len=None) as server:
        assert card_of(server, model).max_model_len == 64
        assert card_of(server, model, max_model_len=16).max_model_len == 16
        with pytest.raises(ConfigError, match="--max-model-len 65: the upstream server has only 64"):
            card_of(server, model, max_model_len=65)


@pytest.mark.parametrize(
    ("constraint", "value"),
    [
        (JsonSchema('{"type":"object"}'), {"json": {"type": "object"}}),
        (Regex("[ab]"), {"regex": "[ab]"}),
        (Grammar('root ::= "a"'), {"grammar": 'root ::= "a"'}),
        (ConstString("a"), {"choice": ["a"]}),
        (AnyOf((ConstString("a"), ConstString("b"))), {"choice": ["a", "b"]}),
    ],
)
def test_constraints_are_forwarded_as_structured_outputs(
    model: Path, constraint: Constraint, value: Any
) -> None:
    with upstream(BY_IDS) as server:
        outputs_of(server, model, constraint=constraint, constraints="vllm")
        assert card_of(server, model, constraints="vllm").grammar == "vllm"
    assert server.bodies[1]["structured_outputs"] == value


@pytest.mark.parametrize("constraint", [TextUntil("end"), AnyOf((ConstString("a"), Regex("b")))])
def test_an_unsupported_constraint_is_rejected(model: Path, constraint: Constraint) -> None:
    with upstream() as server, pytest.raises(RequestError, match="constraint"):
        outputs_of(server, model, constraint=constraint, constraints="vllm")


# Errors at the start are errors of the user.


def test_a_server_that_is_not_there_is_a_user_error_in_one_line(model: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(UserError, match="can't be reached") as refused:
            card_of(url, model)
    assert url in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (error_response("401 Unauthorized", "wrong key"), "failed with 401: wrong key"),
        (error_response("404 Not Found", "no such page"), "failed with 404: no such page"),
        (error_response("503 Service Unavailable", "loading"), "not ready: loading"),
        (full_response({"detail": "what?"}, "400 Bad Request"), "what?"),
        (full_response(b"<html>hello</html>"), "not a list of models"),
        (full_response({"object": "list"}), "not a list of models"),
        (full_response(b"", "302 Found"), "302"),
        (full_response({"data": []}), "serves none"),
        (full_response({"data": [{"id": "a"}, {"id": "b"}]}), "serves a, b"),
        (b"no http\r\n\r\n", "can't be reached, or closed the connection"),
    ],
)
def test_a_bad_list_of_models_is_a_user_error(model: Path, page: bytes, message: str) -> None:
    with scripted_server(lambda body: BY_IDS, page) as server, pytest.raises(UserError, match=message):
        card_of(server, model)


def test_a_url_without_a_version_gets_a_hint(model: Path) -> None:
    missing = error_response("404 Not Found", "no such page")
    with scripted_server(lambda body: BY_IDS, missing) as server:
        with pytest.raises(UserError, match=r"a base URL usually ends with /v1$"):
            card_of(server.url.removesuffix("/v1"), model)
        with pytest.raises(UserError, match=r"404: no such page$"):
            card_of(server, model)


def test_one_of_several_models_is_chosen_by_option(model: Path) -> None:
    listed = full_response({"data": [{"id": "a"}, {"id": "b", "max_model_len": 9}]})
    with scripted_server(lambda body: BY_TEXT, listed) as server:
        assert card_of(server, model, model="b").max_model_len == 9
        with pytest.raises(ConfigError, match="serves a, b, but not 'c'"):
            card_of(server, model, model="c")


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ([error_response("400 Bad Request", "no completions here")], "no completions here"),
        ([error_response("401 Unauthorized", "wrong key")], "wrong key"),
        (stream(), "no choices"),
        (stream(event(b"{")), "malformed completion"),
    ],
)
def test_a_server_that_completes_nothing_is_a_user_error(model: Path, probe: Script, message: str) -> None:
    with upstream(probe, probe=probe) as server, pytest.raises(UserError, match=message):
        card_of(server, model)


def test_ids_that_are_insisted_on_and_not_given_are_a_user_error(model: Path) -> None:
    with upstream(probe=BY_TEXT) as server, pytest.raises(ConfigError, match="only text"):
        card_of(server, model, receive="ids")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "url=...: this option is required"),
        ({"url": "localhost:8000"}, "url='localhost:8000'"),
        ({"url": "http://x/v1", "timeout": "0"}, "timeout='0'"),
        ({"url": "http://x/v1", "api_key": "two\nlines"}, "api_key="),
        ({"url": "http://x/v1", "send": "mail"}, "send='mail'"),
        ({"url": "http://x/v1", "uri": "y"}, "did you mean 'url'"),
    ],
)
def test_options_are_checked(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        openai_backend(BackendConfig(model="m", options=options), BackendContext())


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"devices": (Device("cuda"),)}, "--devices"),
        ({"seed": 1}, "--seed"),
        ({"dtype": "float16"}, "--dtype"),
    ],
)
def test_options_of_the_upstream_server_are_rejected(given: dict[str, Any], flag: str) -> None:
    config = BackendConfig(model="m", options={"url": "http://x/v1"}, **given)
    with pytest.raises(ConfigError, match=f"{flag}: this is a setting of the upstream server"):
        openai_backend(config, BackendContext())


# Later errors fail only their own request.


@pytest.mark.parametrize(
    ("response", "kind", "message"),
    [
        ([error_response("400 Bad Request", "top_k is odd")], RequestError, "top_k is odd"),
        (
            [full_response({"object": "error", "message": "odd"}, "422 Unprocessable Entity")],
            RequestError,
            "odd",
        ),
        ([error_response("401 Unauthorized", "wrong key")], BackendError, "failed with 401: wrong key"),
        ([error_response("429 Too Many Requests", "later")], BackendUnavailable, "later"),
        ([error_response("500 Internal Server Error", "oops")], BackendError, "failed with 500: oops"),
        ([full_response(b"<html>", "502 Bad Gateway")], BackendUnavailable, "<html>"),
        ([full_response(b"", "302 Found")], BackendError, "302"),
        ([CLOSE], BackendUnavailable, "closed the connection"),
        ([EVENT_STREAM, chunk(tokens(1)), CLOSE], BackendUnavailable, "closed the connection"),
        (stream(tokens(1)), BackendError, "without a finish reason"),
        (stream(), BackendError, "without a finish reason"),
        ([full_response({"choices": []})], BackendError, "without a finish reason"),
        (stream(event(b"{oops")), BackendError, "malformed completion"),
        (stream(event({"choices": 3})), BackendError, "malformed completion"),
        (stream(event(b'{"choices": [{"text": "\xff"}]}')), BackendError, "malformed completion"),
        (stream(event({"error": {"message": "died", "type": "server_error"}})), BackendError, "died"),
        (stream(event({"error": {"message": "odd", "code": 400}})), RequestError, "odd"),
        (stream(event({"error": {"message": "odd", "type": "invalid_request_error"}})), RequestError, "odd"),
        (stream(event({"error": {"message": "gone", "code": "unavailable"}})), BackendUnavailable, "gone"),
        (stream(event({"error": "oops"})), BackendError, "oops"),
        (stream(tokens(1, finish="error")), BackendError, "failed during its response"),
    ],
)
def test_each_failure_has_its_error_type(
    model: Path, response: Script, kind: type[Exception], message: str
) -> None:
    with upstream(response) as server, pytest.raises(kind, match=message) as failed:
        outputs_of(server, model)
    assert type(failed.value) is kind


def test_a_refusal_names_the_field_and_the_code_of_the_server(model: Path) -> None:
    error = {"error": {"message": "no", "param": "top_k", "code": "odd_value"}}
    with (
        upstream([full_response(error, "400 Bad Request")]) as server,
        pytest.raises(RequestError) as refused,
    ):
        outputs_of(server, model)
    assert (refused.value.message, refused.value.param, refused.value.code) == ("no", "top_k", "odd_value")


def test_tokens_before_a_failure_are_handed_on(model: Path) -> None:
    seen: list[EngineOutput] = []

    async def scenario(server: WireServer) -> None:
        async with started(server, model) as (backend, _):
            async for step in backend.generate(GenerateRequest("r", ids("hi"), GREEDY)):
                seen.append(step)  # noqa: PERF401  (what came before the error counts)

    with (
        upstream([EVENT_STREAM, chunk(tokens(1)), chunk(tokens(2)), CLOSE]) as server,
        pytest.raises(BackendUnavailable),
    ):
        asyncio.run(scenario(server))
    assert merge_outputs(seen).token_ids == [1, 2]


def test_an_end_without_done_is_an_end(model: Path) -> None:
    with upstream([EVENT_STREAM, chunk(tokens(1, finish="stop")), LAST_CHUNK]) as server:
        assert merge_outputs(outputs_of(server, model)) == EngineOutput(token_ids=[1], finish_reason="stop")


def test_a_connection_that_breaks_before_the_answer_is_tried_once_more(model: Path) -> None:
    with upstream([CLOSE], BY_IDS) as server:
        assert merge_outputs(outputs_of(server, model)).token_ids == [1]
    assert len(server.bodies) == 3


def test_nothing_is_tried_again_once_a_byte_has_come(model: Path) -> None:
    with upstream([EVENT_STREAM, CLOSE], BY_IDS) as server, pytest.raises(BackendUnavailable):
        outputs_of(server, model)
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    "silent",
    [[HANG], [EVENT_STREAM, chunk(tokens(1)), HANG], [EVENT_STREAM, chunk(tokens(1)), b"no chunk\r\n", HANG]],
)
def test_a_server_that_falls_silent_has_failed_in_time(model: Path, silent: Script) -> None:
    with upstream(silent) as server, pytest.raises(BackendUnavailable, match="in time"):
        outputs_of(server, model, timeout="0.2")
    assert len(server.bodies) == 2, "a time-out is not tried again"


def test_closing_an_answer_hangs_up(model: Path) -> None:
    sent = [0]

    def endless() -> Iterator[Any]:
        yield EVENT_STREAM
        while True:
            sent[0] += 1
            yield chunk(tokens(2))

    async def scenario(server: WireServer) -> None:
        async with started(server, model) as (backend, _):
            response = backend.generate(GenerateRequest("r", ids("hi"), GREEDY))
            await anext(response)
            assert (await backend.status()).running == 1
            await response.aclose()
            assert (await backend.status()).running == 0
            async with asyncio.timeout(20):
                before = -1
                while before != sent[0]:
                    before = sent[0]
                    await asyncio.sleep(0.1)

    with upstream(endless()) as server:
        asyncio.run(scenario(server))


@pytest.mark.parametrize(
    ("silent", "speaks"),
    [([HANG], False), ([EVENT_STREAM, HANG], False), ([EVENT_STREAM, chunk(tokens(1)), HANG], True)],
)
def test_stopping_ends_what_is_in_flight(model: Path, silent: Script, speaks: bool) -> None:
    async def scenario(server: WireServer) -> None:
        async with started(server, model) as (backend, _):
            response = backend.generate(GenerateRequest("r", ids("hi"), GREEDY))
            if speaks:
                await anext(response)
            waiting = asyncio.ensure_future(anext(response))
            await asyncio.sleep(0.05)
            await backend.stop()
            with pytest.raises(BackendUnavailable, match="stopping"):
                await waiting
            with pytest.raises(BackendUnavailable):
                await backend.status()

    with upstream(silent) as server:
        asyncio.run(scenario(server))


def test_the_health_of_the_server_is_asked_for_now_and_then(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(server: WireServer) -> int:
        async with started(server, model) as (backend, _):
            before = len(server.heads)
            await asyncio.gather(*(backend.status() for _ in range(5)))
            return len(server.heads) - before

    with upstream() as server:
        assert asyncio.run(scenario(server)) == 1
        monkeypatch.setattr(backend_module, "HEALTH_CACHE_SECONDS", -1.0)
        assert asyncio.run(scenario(server)) == 5


def test_a_server_that_is_gone_is_unwell(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RETRY_DELAY", 0.0)

    async def scenario() -> None:
        with upstream() as server:
            backend = build(server, model)
            await backend.start()
        with pytest.raises(BackendUnavailable, match="can't be reached"):
            await backend.status()
        with pytest.raises(BackendUnavailable, match="can't be reached"):
            [step async for step in backend.generate(GenerateRequest("r", ids("hi"), GREEDY))]
        await backend.stop()

    asyncio.run(scenario())


def test_a_body_is_plain_json(model: Path) -> None:
    with upstream(BY_IDS) as server:
        outputs_of(server, model)
    assert json.loads(json.dumps(server.bodies[1])) == server.bodies[1]
