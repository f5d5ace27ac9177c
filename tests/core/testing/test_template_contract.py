"""The contract of chat templates: ChatML passes, and each violation is detected."""

from __future__ import annotations

from typing import Any

import pytest
from support.chatml import CHATML

import fllm
from fllm import ChatTemplates, TemplateContext, UserError
from fllm.testing import ChatTemplateContract, run_contract


class Resolver:
    def __init__(self, source: str) -> None:
        self._source = source

    @fllm.hookimpl
    def fllm_chat_template(self, context: TemplateContext) -> ChatTemplates | None:
        return {"default": self._source} if context.card.tokenizer == "mine" else None


class Eager:
    """Fails where a model has no files."""

    @fllm.hookimpl
    def fllm_chat_template(self, context: TemplateContext) -> ChatTemplates | None:
        if context.card.tokenizer != "mine":
            raise FileNotFoundError("no tokenizer")
        return {"default": CHATML}


class Rejecting:
    @fllm.hookimpl
    def fllm_chat_template(self, context: TemplateContext) -> ChatTemplates | None:
        raise UserError("not today")


class TestChatML(ChatTemplateContract):
    plugin = Resolver(CHATML)
    model = "mine"


def failures(plugin: object, **attributes: Any) -> dict[str, str]:
    case = type("Case", (ChatTemplateContract,), {"plugin": plugin, "model": "mine", **attributes})
    return {result.test: str(result.error) for result in run_contract(case) if result.error}


MESSAGES = "messages are rendered unchanged and in order"
GENERATION_PROMPT = "the generation prompt is appended"
CONTINUED = "a final message can be continued"
TOOLS = "tools calls and results are rendered"


@pytest.mark.parametrize(
    ("old", "new", "test", "message"),
    [
        ("{{ message.content }}", "", MESSAGES, "'Hello' is missing"),
        ("{{ message.content }}", "{{ message.content | escape }}", MESSAGES, "is missing or out of order"),
        ("in messages", "in messages | reverse", MESSAGES, "is missing or out of order"),
        ("<|im_start|>assistant", "{{ raise_exception('no') }}", MESSAGES, "rejects the conversation: no"),
        ("if add_generation", "if not add_generation", GENERATION_PROMPT, "must only append text"),
        ("{{ message.content }}", "{{ message.content[:6] }}", CONTINUED, "continued"),
        ("{{ call.function.name }}", "", TOOLS, "'get_weather' is missing"),
        ("{{ tools | tojson }}", "", TOOLS, "'get_weather' is missing"),
        ("{%- endfor %}<|im_end|>", "<|im_end|>", "the template compiles", "endfor"),
    ],
)
def test_a_broken_template_is_detected(old: str, new: str, test: str, message: str) -> None:
    assert old in CHATML
    assert message in failures(Resolver(CHATML.replace(old, new)))[test]


def test_a_template_without_roles_or_tools_can_declare_it() -> None:
    plain = (
        "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    )
    plain += "{{ message.content }}\n{% endfor %}"
    assert failures(Resolver(plain), supports_system_role=False, supports_tools=False) == {}
    assert "'get_weather' is missing" in failures(Resolver(plain), supports_system_role=False)[TOOLS]
    assert "rejects" in failures(Resolver(plain), supports_tools=False)["a system message is rendered"]


def test_a_resolver_that_raises_for_another_model_is_detected() -> None:
    found = failures(Eager())["unknown models are ignored"]
    assert "FileNotFoundError: no tokenizer" in found


def test_a_resolver_that_has_nothing_for_its_model_is_detected() -> None:
    assert "has no template for 'other'" in failures(Resolver(CHATML), model="other")[MESSAGES]
    assert failures(Rejecting())[MESSAGES] == "not today"
