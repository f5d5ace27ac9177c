"""The contract that every plugin with chat templates must pass."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from fllm.chat import ChatTemplate
from fllm.interfaces import TemplateContext
from fllm.testing.plugins import plugins_with
from fllm.values import ChatTemplates, ModelCard

Message = dict[str, Any]

TEXTS = (
    "Hello",
    'it\'s "5 < 6" & {{ 7 * 7 }} {% x %}',
    "several\n\nlines\twith a tab",
    "안녕 👩\u200d🚀 é",
    "\\n",
)
"""Texts of messages. None begins or ends with white space, because a template may trim it."""
TOOL: Message = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Where"}},
            "required": ["city"],
        },
    },
}
TOOL_CALL: Message = {
    "id": "abcdefgh1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Seoul"}'},
}
TOOL_CONVERSATION: tuple[Message, ...] = (
    {"role": "user", "content": "How is the weather?"},
    {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
    {"role": "tool", "tool_call_id": "abcdefgh1", "content": "22 degrees"},
)


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


class ChatTemplateContract:
    """Every plugin with the hook `fllm_chat_template` passes this for a model that it supports."""

    plugin: ClassVar[object]
    """The module or object that implements the hook."""
    model: ClassVar[str | Path] = ""
    """Directory of a model that the plugin has templates for."""
    special_tokens: ClassVar[Mapping[str, str]] = {"bos_token": "<s>", "eos_token": "</s>"}
    supports_system_role: ClassVar[bool] = True
    """The template supports system messages."""
    supports_tools: ClassVar[bool] = True
    """The template supports tools, tool calls and tool results."""

    def context(self) -> TemplateContext:
        """Return the context that the hook is called with."""
        return _context(self.model)

    def template(self) -> ChatTemplate:
        """Return the compiled template of the plugin."""
        sources = self._resolve(self.context())
        assert sources, (
            f"the plugin has no template for {self.model!r}; set `model` to a directory that it supports"
        )
        return ChatTemplate.compile(sources, special_tokens=self.special_tokens)

    def render(self, messages: Sequence[Message], **options: Any) -> str:
        """Render a conversation as the server does, but adapt nothing that the template can't express."""
        return self.template().render(messages, adapt=False, **options)

    def test_the_template_compiles(self) -> None:
        self.template().check()

    def test_unknown_models_are_ignored(self) -> None:
        with TemporaryDirectory() as empty:
            for directory in (empty, f"{empty}/nowhere"):
                self._resolve(_context(directory))

    def test_messages_are_rendered_unchanged_and_in_order(self) -> None:
        for text in TEXTS:
            turns = [_user(text), _assistant("It is so."), _user(f"And now? {text}")]
            for messages in (turns[:1], turns):
                self._assert_contains(self.render(messages), [message["content"] for message in messages])

    def test_a_system_message_is_rendered(self) -> None:
        if self.supports_system_role:
            rendered = self.render([{"role": "system", "content": "Be terse."}, _user("Hello")])
            self._assert_contains(rendered, ["Be terse."])
            self._assert_contains(rendered, ["Hello"])

    def test_content_parts_are_rendered(self) -> None:
        parts = [{"type": "text", "text": "First part."}, {"type": "text", "text": "Second part."}]
        rendered = self.render([{"role": "user", "content": parts}])
        self._assert_contains(rendered, ["First part.", "Second part."])

    def test_the_generation_prompt_is_appended(self) -> None:
        for messages in ([_user("Hello")], [_user("Hello"), _assistant("Hi."), _user("Well?")]):
            prompt = self.render(messages, add_generation_prompt=False)
            generation = self.render(messages)
            assert generation.startswith(prompt), (
                f"add_generation_prompt must only append text to\n{prompt}\nnot render\n{generation}"
            )

    def test_a_final_message_can_be_continued(self) -> None:
        messages = [_user("Write a story."), _assistant("Once upon a time")]
        rendered = self.render(messages, add_generation_prompt=False, continue_final_message=True)
        assert rendered.endswith("Once upon a time"), (
            f"with continue_final_message, the prompt must end with the last message, not\n{rendered}"
        )

    def test_tools_calls_and_results_are_rendered(self) -> None:
        if self.supports_tools:
            self._assert_contains(self.render([_user("Hello")], tools=[TOOL]), ["get_weather"])
            rendered = self.render(TOOL_CONVERSATION, tools=[TOOL])
            self._assert_contains(rendered, ["How is the weather?", "get_weather", "Seoul", "22 degrees"])

    def test_rendering_does_not_modify_its_arguments(self) -> None:
        messages, tools = copy.deepcopy([*TOOL_CONVERSATION]), [copy.deepcopy(TOOL)]
        if self.supports_tools:
            first, second = (self.render(messages, tools=tools) for _ in range(2))
            assert first == second, f"the same conversation was rendered differently:\n{first}\n{second}"
            assert (messages, tools) == ([*TOOL_CONVERSATION], [TOOL]), "rendering modified its arguments"

    def _resolve(self, context: TemplateContext) -> ChatTemplates | None:
        plugins = plugins_with(self.plugin, installed=False)
        sources = plugins.chat_templates(context)
        error = plugins.reports[-1].error
        assert not error, (
            f"for the model {context.card.tokenizer!r}: {error}; return None for an unknown model"
        )
        return sources

    def _assert_contains(self, rendered: str, texts: Sequence[str]) -> None:
        position = 0
        for text in texts:
            found = rendered.find(text, position)
            assert found >= 0, f"{text!r} is missing or out of order in the rendered prompt:\n{rendered}"
            position = found + len(text)


def _context(directory: str | Path) -> TemplateContext:
    return TemplateContext(card=ModelCard(tokenizer=str(directory), max_model_len=4096))
