"""Choosing the parser that fits a model."""

import pytest

from fllm import PluginError
from fllm.plugins.parser_detection import ModelTraits, ParserEntry, candidates, detect
from fllm.plugins.registry import Entry, Registry
from fllm.plugins.validation import check_entries

TEMPLATE = "{{ '<call>' + arguments + '</call>' }}"


def entry(name: str, *template_markers: str | tuple[str, ...], **others: tuple[str, ...]) -> ParserEntry:
    return ParserEntry(name, f"acme:{name}", template_markers=template_markers, **others)


def found(*entries: Entry, templates: str = TEMPLATE, tokens: tuple[str, ...] = ()) -> list[str]:
    registry = Registry("parser")
    for each in entries:
        registry.add(each, plugin="acme", distribution="acme")
    return detect(registry, ModelTraits(templates, tokens.__contains__))


def test_all_evidence_must_be_there() -> None:
    assert found(entry("a", "<call>", "arguments")) == ["a"]
    assert found(entry("a", "<call>", "parameters")) == []


def test_of_evidence_in_a_tuple_one_must_be_there() -> None:
    assert found(entry("a", "<call>", ("parameters", "arguments"))) == ["a"]
    assert found(entry("a", "<call>", ("parameters", "args"))) == []


def test_what_speaks_against_a_parser_must_not_be_there() -> None:
    assert found(entry("a", "<call>", excluded_markers=("<function=", "arguments"))) == []
    assert found(entry("a", "<call>", excluded_markers=("<function=",))) == ["a"]


def test_a_token_is_looked_for_in_the_vocabulary_and_not_in_the_template() -> None:
    parser = entry("a", required_tokens=("<call>",))
    assert found(parser) == []
    assert found(parser, templates="", tokens=("<call>", "<s>")) == ["a"]
    assert found(entry("a", "<s>"), tokens=("<s>",)) == []


def test_the_most_specific_wins_whatever_its_name() -> None:
    general, special = entry("a", "<call>"), entry("b", "<call>", "arguments")
    assert found(general, special) == ["b"]
    assert found(entry("b", "<call>"), entry("a", "<call>", required_tokens=("<s>",)), tokens=("<s>",)) == [
        "a"
    ]


def test_several_that_fit_alike_are_all_named() -> None:
    assert found(entry("a", "<call>"), entry("b", "arguments"), entry("c", "<call>")) == ["a", "b", "c"]


def test_a_parser_without_evidence_is_never_chosen() -> None:
    silent = (Entry("a", "acme:a"), entry("b"), entry("c", excluded_markers=("nothing",)))
    assert found(*silent) == []
    registry = Registry("parser")
    for each in (*silent, entry("d", "<call>")):
        registry.add(each, plugin="acme", distribution="acme")
    assert [each.name for each in candidates(registry)] == ["d"]


@pytest.mark.parametrize(
    "wrong",
    [
        entry("auto", "<call>"),
        entry("a", ""),
        entry("a", ("<call>", "")),
        entry("a", ()),
        ParserEntry("a", "acme:a", template_markers="<call>"),  # type: ignore[arg-type]
        ParserEntry("a", "acme:a", excluded_markers=[1]),  # type: ignore[arg-type]
        ParserEntry("a", "acme:a", required_tokens=(1,)),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_evidence_of_another_kind_leaves_the_plugin_out(wrong: ParserEntry) -> None:
    with pytest.raises(
        PluginError,
        match=r"fllm_tool_parsers: (a parser may not|template_markers|excluded_markers|required_tokens)",
    ):
        check_entries("fllm_tool_parsers", [wrong])
