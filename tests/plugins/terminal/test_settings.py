"""Sampling settings, tools and schemas of the terminal chat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fllm.errors import ConfigError
from fllm_terminal.settings import NAMES, Sampling, Settings, read_schema, read_tools


def test_only_settings_that_are_set_are_sent() -> None:
    sampling = Sampling(temperature=0)
    sampling.change("top_k", "40")
    sampling.change("stop", "END")
    assert sampling.fields() == {"temperature": 0, "top_k": 40, "stop": "END"}
    sampling.change("temperature", "")
    assert Settings(model="m", sampling=sampling).fields() == {"model": "m", "top_k": 40, "stop": "END"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("top_p", "2", "top_p: Expected `float` <= 1.0"),
        ("max_tokens", "many", "max_tokens: Expected `int`, got `str`"),
        ("temprature", "1", "there is no setting 'temprature'; the settings are temperature, top_p"),
    ],
)
def test_an_invalid_setting_changes_nothing(name: str, value: str, message: str) -> None:
    sampling = Sampling(top_p=0.5)
    with pytest.raises(ConfigError) as raised:
        sampling.change(name, value)
    assert raised.value.message.startswith(message)
    assert sampling == Sampling(top_p=0.5)
    assert set(NAMES) >= {"temperature", "top_p", "max_tokens"}


def test_tools_are_openai_tools_or_bare_functions(tmp_path: Path) -> None:
    function = {"name": "f", "parameters": {"type": "object"}}
    file = tmp_path / "tools.json"
    file.write_text(json.dumps([function, {"type": "function", "function": function}]))
    assert read_tools(file) == [{"type": "function", "function": function}] * 2


@pytest.mark.parametrize("text", ["{}", "[1]", "nonsense"])
def test_other_files_are_no_tools(text: str, tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match="tools"):
        read_tools(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_tools(tmp_path / "missing.json")


def test_a_schema_becomes_a_response_format(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"type": "object"}')
    assert read_schema(file)["json_schema"]["schema"] == {"type": "object"}
    file.write_text("[]")
    with pytest.raises(ConfigError, match="a JSON Schema must be an object"):
        read_schema(file)
