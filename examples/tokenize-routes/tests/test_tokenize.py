"""The routes, with a small tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fllm_tokenize import plugin
from fllm_tokenize.routes import detokenize, tokenize
from litestar import Litestar, Request, Response
from litestar.di import Provide
from litestar.testing import TestClient
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Inner

from fllm import ModelCard, RequestError, Serving
from fllm.chat import ChatTemplate
from fllm.testing import plugins_with
from fllm.tokenizer import Tokenizer

TEMPLATE = (
    "{% for message in messages %}{{ message.content }}{% endfor %}{% if add_generation_prompt %}!{% endif %}"
)


def small_tokenizer() -> Tokenizer:
    """Return a tokenizer with one token per byte, and a BOS before a plain text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Inner(models.BPE({byte: at for at, byte in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken("<s>", special=True)])
    bos = ("<s>", inner.token_to_id("<s>"))
    inner.post_processor = processors.TemplateProcessing(single=["<s>", "$A"], special_tokens=[bos])
    return Tokenizer(inner, {"bos_token": "<s>"})


class Server:
    """The server that the handlers receive."""

    card = ModelCard(tokenizer="", max_model_len=64)
    backend: Any = None  # unused by these routes
    tokenizer = small_tokenizer()
    template: ChatTemplate | None = ChatTemplate.compile({"default": TEMPLATE}, special_tokens={})


def bad_request(_: Request[Any, Any, Any], error: RequestError) -> Response[Any]:
    return Response({"message": error.message, "param": error.param}, status_code=400)


@pytest.fixture
def client() -> Iterator[TestClient[Litestar]]:
    server = Server()
    app = Litestar(
        [tokenize, detokenize],
        dependencies={"server": Provide(lambda: server, sync_to_thread=False)},
        exception_handlers={RequestError: bad_request},
    )
    with TestClient(app) as client:
        yield client


def test_a_text_is_tokenized_with_its_bos_token(client: TestClient[Litestar]) -> None:
    found = client.post("/tokenize", json={"prompt": "ab", "return_token_strs": True}).json()
    assert found["token_strs"] == ["<s>", "a", "b"]
    assert (found["count"], found["max_model_len"]) == (3, 64)


def test_a_conversation_is_rendered_first_and_has_its_special_tokens(client: TestClient[Litestar]) -> None:
    messages = [{"role": "user", "content": "ab"}]
    found = client.post("/tokenize", json={"messages": messages, "return_token_strs": True}).json()
    assert found["token_strs"] == ["a", "b", "!"]
    without = {"messages": messages, "add_generation_prompt": False}
    assert client.post("/tokenize", json=without).json()["count"] == 2


def test_detokenizing_gives_the_text_again(client: TestClient[Litestar]) -> None:
    tokens = client.post("/tokenize", json={"prompt": "서울 😀", "add_special_tokens": False}).json()[
        "tokens"
    ]
    assert client.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": "서울 😀"}


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "messages": []}])
def test_a_text_or_a_conversation_must_be_given_and_not_both(
    client: TestClient[Litestar], body: dict[str, Any]
) -> None:
    response = client.post("/tokenize", json=body)
    assert (response.status_code, response.json()["param"]) == (400, "prompt")


def test_an_unknown_token_is_a_bad_request(client: TestClient[Litestar]) -> None:
    response = client.post("/detokenize", json={"tokens": [0, 10**6]})
    assert (response.status_code, response.json()["param"]) == (400, "tokens[1]")


def test_the_fake_is_a_server_and_the_plugin_is_sound() -> None:
    assert isinstance(Server(), Serving)
    assert plugins_with(plugin, installed=False).reports[-1].hooks == ["fllm_routes"]
