"""The order in which chat templates are chosen."""

import json
from pathlib import Path

import pytest
from support.chatml import CHATML

import fllm
from fllm import ChatTemplates, ConfigError, ModelCard, ModelError, TemplateContext
from fllm.testing import ChatTemplateContract, plugins_with
from fllm_parsers import plugin, templates

OURS = (plugin, templates)


def resolved(
    directory: Path, file: Path | None = None, plugins: tuple[object, ...] = OURS
) -> ChatTemplates | None:
    card = ModelCard(tokenizer=str(directory), max_model_len=8)
    return plugins_with(*plugins, installed=False).chat_templates(TemplateContext(card=card, file=file))


def written(file: Path, content: object) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


def configured(directory: Path, chat_template: object) -> Path:
    return written(
        directory / "tokenizer_config.json", {"bos_token": {"x": 1}, "chat_template": chat_template}
    )


class TestModelTemplates(ChatTemplateContract):
    plugin = plugin

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _model(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.model = tmp_path_factory.mktemp("model")
        configured(cls.model, CHATML)


class TestFile(ChatTemplateContract):
    plugin = templates
    file: Path

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _file(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.file = written(tmp_path_factory.mktemp("templates") / "mine.jinja", CHATML)

    def context(self) -> TemplateContext:
        return TemplateContext(card=ModelCard(tokenizer="nowhere", max_model_len=8), file=self.file)


class SomebodyElse:
    @fllm.hookimpl
    def fllm_chat_template(self) -> ChatTemplates | None:
        return {"default": "another's"}


def test_a_model_without_a_template_has_none(tmp_path: Path) -> None:
    assert resolved(tmp_path) is None
    assert resolved(tmp_path / "nowhere") is None
    for nothing in (None, "", []):
        configured(tmp_path, nothing)
        assert resolved(tmp_path) is None


def test_a_template_may_stand_in_the_configuration(tmp_path: Path) -> None:
    configured(tmp_path, "{{ é }}")
    assert resolved(tmp_path) == {"default": "{{ é }}"}


def test_the_configuration_may_hold_several(tmp_path: Path) -> None:
    configured(tmp_path, [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}])
    assert resolved(tmp_path) == {"default": "a", "tool_use": "b"}


def test_files_of_their_own_win_over_the_configuration(tmp_path: Path) -> None:
    configured(tmp_path, [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}])
    written(tmp_path / "chat_template.jinja", "c")
    written(tmp_path / "additional_chat_templates" / "tool_use.jinja", "d")
    assert resolved(tmp_path) == {"default": "c", "tool_use": "d"}


def test_the_template_of_a_processor_is_read_if_the_tokenizer_has_none(tmp_path: Path) -> None:
    written(tmp_path / "chat_template.json", '{"chat_template": "p"}')
    assert resolved(tmp_path) == {"default": "p"}
    configured(tmp_path, "t")
    assert resolved(tmp_path) == {"default": "t"}


def test_the_file_of_the_command_line_wins_over_the_model(tmp_path: Path) -> None:
    configured(tmp_path, [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}])
    assert resolved(tmp_path, written(tmp_path / "mine.jinja", "mine")) == {"default": "mine"}


@pytest.mark.parametrize("plugins", [(*OURS, SomebodyElse()), (SomebodyElse(), *OURS)], ids=["last", "first"])
def test_the_file_wins_over_other_resolvers_and_they_over_the_model(
    tmp_path: Path, plugins: tuple[object, ...]
) -> None:
    configured(tmp_path, "the model's")
    assert resolved(tmp_path, None, plugins) == {"default": "another's"}
    assert resolved(tmp_path, written(tmp_path / "mine.jinja", "mine"), plugins) == {"default": "mine"}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--chat-template.*missing\.jinja"):
        resolved(tmp_path, tmp_path / "missing.jinja")
    (tmp_path / "latin.jinja").write_bytes(b"\xe9")
    with pytest.raises(ConfigError, match=r"latin\.jinja"):
        resolved(tmp_path, tmp_path / "latin.jinja")


@pytest.mark.parametrize("broken", ["{", '{"chat_template": 1}', '{"chat_template": [{"name": "default"}]}'])
def test_a_configuration_that_cannot_be_read_is_named(tmp_path: Path, broken: str) -> None:
    written(tmp_path / "tokenizer_config.json", broken)
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        resolved(tmp_path)
