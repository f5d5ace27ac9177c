"""The check of a model's tokenizer and templates in a child process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from fllm.errors import ModelError
from fllm.model_check import CHECK_LIMITS, ModelCheck
from fllm.testing.echo import echo_model

SMALL = replace(CHECK_LIMITS, memory=256 << 20)


@pytest.fixture(scope="module")
def check() -> Iterator[ModelCheck]:
    check = ModelCheck(SMALL)
    check.start()
    yield check
    check.stop()


def template_error(check: ModelCheck, template: str) -> str:
    with pytest.raises(ModelError) as caught:
        check.check_templates({"default": template}, "auto", "the chat template in FILE")
    return caught.value.message


@pytest.mark.parametrize(
    "template",
    [
        "{% for x in range(99999) %}{% for y in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ 7 ** (7 ** 9) }}",
        "{{ 'a'.ljust(10**10) }}",
        "{{ 'a'|center(10**10) }}",
        "{% set n = namespace(s='aa') %}{% for x in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{{ (range(60000)|list * 900)|join('b' * 60000) }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    ],
)
def test_a_template_that_exceeds_a_limit_is_refused(template: str, check: ModelCheck) -> None:
    message = template_error(check, template)
    assert message.startswith("the chat template in FILE can't be used: ")
    assert message.endswith("; pass another with --chat-template FILE")


def test_other_errors_of_a_template_are_left_to_the_process_that_loads_it(check: ModelCheck) -> None:
    for template in ("{% if %}", "{{ 1 / 0 }}", "{{ raise_exception('no') }}", "{{ messages[0].content }}"):
        check.check_templates({"default": template}, "auto", "the chat template")


def test_a_tokenizer_that_works_passes(check: ModelCheck, tmp_path: Path) -> None:
    check.check_tokenizer(echo_model(tmp_path))


def test_a_tokenizer_without_a_token_for_unknown_words_passes(check: ModelCheck, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"word": 0}, unk_token="<unk>")).save(str(tmp_path / "tokenizer.json"))
    check.check_tokenizer(tmp_path)


def test_a_tokenizer_whose_pattern_backtracks_for_ever_is_refused(check: ModelCheck, tmp_path: Path) -> None:
    file = echo_model(tmp_path) / "tokenizer.json"
    content = json.loads(file.read_bytes())
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [pattern, content["pre_tokenizer"]]}
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"tokenizer\.json can't be used: .*retry-limit"):
        check.check_tokenizer(tmp_path)


def test_a_tokenizer_that_takes_too_much_memory_is_refused(tmp_path: Path) -> None:
    check = ModelCheck(SMALL)  # a new child, since an earlier check may have taken memory
    file = echo_model(tmp_path) / "tokenizer.json"
    content = json.loads(file.read_bytes())
    content["model"]["vocab"] |= {f"token {i} {'x' * 400}": i for i in range(256, 300_000)}
    file.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"tokenizer\.json can't be used: .*too much memory"):
        check.check_tokenizer(tmp_path)
    check.stop()
