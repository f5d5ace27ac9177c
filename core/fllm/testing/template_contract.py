"""The contract that every chat-template resolver must pass."""

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

ODD = (
    "Hello",
    'it\'s "5 < 6" & {{ 7 * 7 }} {% x %}',
    "several\n\nlines\twith a tab",
    "안녕 👩\u200d🚀 é",
    "\\n",
)
"""Message texts. None begins or ends with white space, which a template may trim."""
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
CALL: Message = {
    "id": "abcdefgh1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Seoul"}'},
}
CALLED: tuple[Message, ...] = (
    {"role": "user", "content": "How is the weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "abcdefgh1", "content": "22 degrees"},
)


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


class ChatTemplateContract:
    """Every plugin with `fllm_chat_template` passes this, for a model that it has templates for."""

    plugin: ClassVar[object]
    """Module or object that implements the hook."""
    model: ClassVar[str | Path] = ""
    """Directory of a model that the plugin has templates for."""
    special_tokens: ClassVar[Mapping[str, str]] = {"bos_token": "<s>", "eos_token": "</s>"}
    supports_system_role: ClassVar[bool] = True
    """The template supports a system message."""
    supports_tools: ClassVar[bool] = True
    """The template supports tools, calls and results."""

    def context(self) -> TemplateContext:
        """Return the context that the resolver is called with."""
        return _context(self.model)

    def template(self) -> ChatTemplate:
        """Return the compiled templates of the resolver."""
        sources = self._resolved(self.context())
        assert sources, f"it has no template for {self.model!r}"
        return ChatTemplate.compile(sources, special_tokens=self.special_tokens)

    def render(self, messages: Sequence[Message], **how: Any) -> str:
        """Render a conversation as the server does."""
        return self.template().render(messages, **how)

    def test_the_template_compiles(self) -> None:
        self.template().check()

    def test_unknown_models_are_ignored(self) -> None:
        with TemporaryDirectory() as empty:
            for directory in (empty, f"{empty}/nowhere"):
                self._resolved(_context(directory))

    def test_messages_are_rendered_unchanged_and_in_order(self) -> None:
        for text in ODD:
            turns = [_user(text), _assistant("It is so."), _user(f"And now? {text}")]
            for messages in (turns[:1], turns):
                self._check_shown(self.render(messages), [message["content"] for message in messages])

    def test_a_system_message_is_rendered(self) -> None:
        if self.supports_system_role:
            said = self.render([{"role": "system", "content": "Be terse."}, _user("Hello")])
            self._check_shown(said, ["Be terse."])
            self._check_shown(said, ["Hello"])

    def test_content_parts_are_rendered(self) -> None:
        parts = [{"type": "text", "text": "First part."}, {"type": "text", "text": "Second part."}]
        said = self.render([{"role": "user", "content": parts}])
        self._check_shown(said, ["First part.", "Second part."])

    def test_the_generation_prompt_is_appended(self) -> None:
        for messages in ([_user("Hello")], [_user("Hello"), _assistant("Hi."), _user("Well?")]):
            without = self.render(messages, add_generation_prompt=False)
            asked = self.render(messages)
            assert asked.startswith(without), f"add_generation_prompt changes more than the end:\n{asked}"

    def test_a_final_message_can_be_continued(self) -> None:
        messages = [_user("Tell me a story."), _assistant("Once upon a time")]
        said = self.render(messages, add_generation_prompt=False, continue_final_message=True)
        assert said.endswith("Once upon a time"), f"it must end where the last message ends:\n{said}"

    def test_tools_calls_and_results_are_rendered(self) -> None:
        if self.supports_tools:
            self._check_shown(self.render([_user("Hello")], tools=[TOOL]), ["get_weather"])
            said = self.render(CALLED, tools=[TOOL])
            self._check_shown(said, ["How is the weather?", "get_weather", "Seoul", "22 degrees"])

    def test_rendering_does_not_modify_its_arguments(self) -> None:
        messages, tools = copy.deepcopy([*CALLED]), [copy.deepcopy(TOOL)]
        if self.supports_tools:
            first, second = (self.render(messages, tools=tools) for _ in range(2))
            assert first == second, "the same conversation was rendered in two ways"
            assert (messages, tools) == ([*CALLED], [TOOL]), "the messages were changed"

    def _resolved(self, context: TemplateContext) -> ChatTemplates | None:
        plugins = plugins_with(self.plugin, installed=False)
        sources = plugins.chat_templates(context)
        assert not (error := plugins.reports[-1].error), f"asked about {context.card.tokenizer!r}, {error}"
        return sources

    def _check_shown(self, said: str, texts: Sequence[str]) -> None:
        place = 0
        for text in texts:
            found = said.find(text, place)
            assert found >= 0, f"{text!r} is missing, or out of order:\n{said}"
            place = found + len(text)


def _context(directory: str | Path) -> TemplateContext:
    return TemplateContext(card=ModelCard(tokenizer=str(directory), max_model_len=4096))
