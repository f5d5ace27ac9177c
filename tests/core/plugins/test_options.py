"""A backend's own options: declared once as a Struct, and from that checked, converted and described."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from fllm import ConfigError, backend_options
from fllm.plugins.options import Option, options_of


class AcmeOptions(Struct, frozen=True, kw_only=True):
    url: Annotated[str, Meta(description="where it listens")]
    cores: Annotated[int, Meta(ge=1, le=8, description="cores that compute")] | None = None
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    mode: Literal["fast", "exact"] = "fast"
    loud: bool = False

    def __post_init__(self) -> None:
        if self.loud and self.mode == "fast":
            raise ValueError("loud needs mode=exact")


def test_text_becomes_what_the_fields_are() -> None:
    given = {"url": "http://a=b", "cores": "4", "share": "0.25", "mode": "exact", "loud": "true"}
    wanted = AcmeOptions(url="http://a=b", cores=4, share=0.25, mode="exact", loud=True)
    assert backend_options(given, AcmeOptions) == wanted


def test_what_is_not_given_has_its_default() -> None:
    assert backend_options({"url": "7"}, AcmeOptions) == AcmeOptions(url="7")


@pytest.mark.parametrize(
    ("given", "message"),
    {
        "a name that is nearly right": (
            {"url": "u", "core": "2"},
            "--backend-option core: there is no such option; did you mean 'cores'? "
            "(options: url, cores, share, mode, loud)",
        ),
        "a value out of bounds": (
            {"url": "u", "cores": "9"},
            "--backend-option cores='9': invalid value; expected "
            "integer, at least 1, at most 8 (cores that compute)",
        ),
        "a word that is no number": (
            {"url": "u", "share": "half"},
            "--backend-option share='half': invalid value; expected number, above 0, below 1",
        ),
        "a word that is none of those": (
            {"url": "u", "mode": "slow"},
            "--backend-option mode='slow': invalid value; expected exact | fast",
        ),
        "one that must be given": (
            {},
            "--backend-option url=...: this option is required: text (where it listens)",
        ),
        "two that exclude each other": (
            {"url": "u", "loud": "true"},
            "--backend-option: loud needs mode=exact",
        ),
    }.values(),
)
def test_what_can_not_be_read_says_what_is_meant(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        backend_options(given, AcmeOptions)


def test_a_backend_without_options_says_so() -> None:
    class Nothing(Struct):
        pass

    with pytest.raises(ConfigError, match=r"\(options: none\)"):
        backend_options({"a": "1"}, Nothing)


def test_options_are_described_in_their_order() -> None:
    assert options_of(AcmeOptions) == [
        Option("url", "text", None, True, "where it listens"),
        Option("cores", "integer, at least 1, at most 8", None, False, "cores that compute"),
        Option("share", "number, above 0, below 1", 0.5, False, ""),
        Option("mode", "exact | fast", "fast", False, ""),
        Option("loud", "true or false", False, False, ""),
    ]


class NestedOptions(Struct, frozen=True, kw_only=True):
    name: str
    limits: AcmeOptions | None = None
    rates: dict[str, float] = {}
    ports: list[Annotated[int, Meta(ge=1)]] = []
    password: Annotated[str, Meta(extra={"secret": True})] | None = None
    logins: list[Annotated[str, Meta(extra={"secret": True})]] = []


def test_lists_and_tables_are_json_where_a_value_is_text() -> None:
    given = {"name": "[x", "ports": "[1, 2]", "rates": '{"a": 0.5}', "limits": '{"url": "u"}'}
    wanted = NestedOptions(name="[x", ports=[1, 2], rates={"a": 0.5}, limits=AcmeOptions(url="u"))
    assert backend_options(given, NestedOptions) == wanted
    with pytest.raises(
        ConfigError, match=r"ports='\[1': invalid value; expected list of integer, at least 1, as"
    ):
        backend_options({"name": "a", "ports": "[1"}, NestedOptions)
    with pytest.raises(
        ConfigError, match=r"limits=.*; expected table, as JSON; Object missing required field"
    ):
        backend_options({"name": "a", "limits": "{}"}, NestedOptions)


def test_a_field_with_a_secret_inside_is_secret() -> None:
    found = {option.name: (option.type, option.secret) for option in options_of(NestedOptions)}
    assert found == {
        "name": ("text", False),
        "limits": ("table", False),
        "rates": ("table", False),
        "ports": ("list of integer, at least 1", False),
        "password": ("text", True),
        "logins": ("list of text", True),
    }


def test_a_name_that_a_table_does_not_have_is_an_error() -> None:
    limits = '{"url": "u", "core": 2}'
    message = "expected table, as JSON; a field is none of url, cores, share, mode, loud"
    with pytest.raises(ConfigError, match=f"limits=.*{message}$"):
        backend_options({"name": "a", "limits": limits}, NestedOptions)
    with pytest.raises(ConfigError, match=f"many=.*a{message.partition('; a')[2]}$"):
        backend_options({"many": f"[{limits}]"}, ManyOptions)
    with pytest.raises(ConfigError, match=f"named=.*{message}$"):
        backend_options({"named": f'{{"x": {limits}}}'}, ManyOptions)


class ManyOptions(Struct, frozen=True, kw_only=True, tag="many"):
    many: Annotated[list[AcmeOptions], Meta(max_length=2)] = []
    named: dict[str, AcmeOptions] = {}
    word: Annotated[str, Meta(min_length=1, max_length=4, pattern="^[a-z]")] = "a"
    day: date | None = None


def test_the_limits_of_texts_and_lists_are_described() -> None:
    assert {option.name: option.type for option in options_of(ManyOptions)} == {
        "many": "list of table, at most 2 of them",
        "named": "table",
        "word": "text, at least 1 characters, at most 4 characters, matching ^[a-z]",
        "day": "date",
    }


class FailingOptions(Struct):
    name: str = ""

    def __post_init__(self) -> None:
        raise LookupError("no such name")


def test_a_check_that_fails_is_an_invalid_option() -> None:
    with pytest.raises(ConfigError, match="LookupError: no such name"):
        backend_options({"name": "a"}, FailingOptions)
