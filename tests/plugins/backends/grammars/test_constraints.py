"""Both backends enforce every kind of constraint in the same way, and neither can be kept busy."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from support.random_texts import Walker

from fllm import Constraint, GrammarCompiler, GrammarContext, RequestError, Vocabulary
from fllm.constraints import (
    ANY_OBJECT,
    AnyOf,
    Concat,
    ConstString,
    Grammar,
    JsonSchema,
    Regex,
    Repeat,
    Tag,
    TextUntil,
    TriggeredTags,
)
from fllm_backends.grammars.llguidance import LLGuidance

POINT = JsonSchema('{"type":"object","properties":{"x":{"type":"integer"}},"required":["x"]}')

TEXTS: list[tuple[Constraint, list[str], list[str]]] = [
    (ConstString('a "quoted"\n서울'), ['a "quoted"\n서울'], ["a", ""]),
    (
        POINT,
        ['{"x": 1}', '{"x": -20}'],
        ['{"x": 1.5}', '{"x": 1} ', "{}", '{"y": 1}', '{"x":  1}', '{"x" : 1}'],
    ),
    (
        JsonSchema('{"enum":["é0","서a","\\\\u00e9b","😀1"]}'),
        ['"é0"', '"서a"', '"\\\\u00e9b"', '"😀1"'],
        ['"຀"'],
    ),
    (JsonSchema('{"const":{"é0":[1,{}]}}'), ['{"é0": [1, {}]}'], ['{"é0": [1, {"a": 1}]}']),
    (Grammar('start: "é0" | "서a"\n'), ["é0", "서a"], ["຀"]),
    (ANY_OBJECT, ["{}", '{"a": [1, null]}'], ["[]", "1"]),
    (Regex("[a-c]{2,3}/\\d"), ["ab/1", "abc/9"], ["a/1", "ab/1 ", " ab/1"]),
    (Regex("^(yes|no)$"), ["yes", "no"], ["maybe"]),
    (Regex("/.*\"'"), ["/x\"'"], ["x"]),
    (Grammar('root ::= "a" root "b" | "c"\n'), ["c", "aacbb"], ["acbb", ""]),
    (Concat((TextUntil("</think>"), ConstString("x"))), ["a < b</think>x", "</think>x"], ["x", "</think>xx"]),
    (
        Concat((TextUntil("</p>", ("</f>\n</c>", "<f=")), ConstString("x"))),
        ["a</f>\n</p>x", "</p>x", "</f>\n</</p>x", "<f</p>x", "é\n<p=</p>x"],
        ["a</f>\n</c></p>x", "a<f=b</p>x", "<f=</p>x", "a</p>y</p>x"],
    ),
    (Concat((ConstString(""), POINT, ConstString(""))), ['{"x": 1}'], [""]),
    (AnyOf((ConstString("yes"), ConstString("no"), POINT)), ["yes", "no", '{"x": 3}'], ["yesno", ""]),
    (Repeat(item=ConstString("ab"), separator=", ", max=2), ["ab", "ab, ab"], ["", "ab, ab, ab", "ab, "]),
    (Repeat(item=ConstString("a"), min=0, max=2), ["", "a", "aa"], ["aaa"]),
    (Repeat(item=ConstString("a"), separator=";", min=2), ["a;a", "a;a;a"], ["a"]),
    (Repeat(item=ConstString("a"), separator=";", max=1), ["a"], ["", "a;a"]),
    (Repeat(item=ConstString("a"), separator=";", min=0), ["", "a", "a;a"], [";"]),
    (
        TriggeredTags(
            triggers=("<f",),
            tags=(Tag("<f=one>", POINT, "</f>"), Tag("<f=two>", ConstString("2"), "</f>")),
        ),
        ["plain", "", 'go <f=one>{"x": 1}</f> and <f=two>2</f>.', "a < b"],
        ["<f=three>", "<f=one>2</f>", '<f=one>{"x": 1}'],
    ),
    (Concat((ConstString("<"), Grammar('root ::= "a" | "b"'), ConstString(">"))), ["<a>"], ["<>"]),
]


def accepts(compiler: GrammarCompiler, vocabulary: Vocabulary, constraint: Constraint, text: str) -> bool:
    """Return whether the grammar accepts a text, byte by byte."""
    matcher = compiler.compile(constraint).matcher()
    of = {
        token: token_id for token_id, token in reversed(list(enumerate(vocabulary.tokens))) if len(token) == 1
    }
    return all(matcher.accept_token(of[bytes([byte])]) for byte in text.encode()) and matcher.is_accepting


@pytest.mark.parametrize(("constraint", "valid", "invalid"), TEXTS, ids=lambda each: str(each)[:40])
def test_a_grammar_accepts_the_valid_texts_only(
    constraint: Constraint,
    valid: list[str],
    invalid: list[str],
    compiler: GrammarCompiler,
    vocabulary: Vocabulary,
) -> None:
    assert [text for text in valid if not accepts(compiler, vocabulary, constraint, text)] == []
    assert [text for text in invalid if accepts(compiler, vocabulary, constraint, text)] == []


def test_matchers_of_one_grammar_are_independent(compiler: GrammarCompiler, vocabulary: Vocabulary) -> None:
    grammar = compiler.compile(AnyOf((ConstString("yes"), ConstString("no"))))
    walker = Walker(vocabulary)
    assert {walker.text(grammar, seed) for seed in range(30)} == {b"yes", b"no"}


def test_a_text_that_exceeds_a_limit_of_llguidance_is_the_fault_of_the_grammar(
    vocabulary: Vocabulary,
) -> None:
    letter = vocabulary.tokens.index(b"a")
    with contextlib.closing(LLGuidance(GrammarContext(vocabulary=lambda: vocabulary))) as compiler:
        matcher = compiler.compile(Grammar('start: e\ne: "a" e "b" | "a" e | "a"')).matcher()
        with pytest.raises(RequestError, match="too complex: Current row has 2001 items"):
            all(matcher.accept_token(letter) for _ in range(2000))


def test_a_token_that_the_grammar_does_not_allow_is_no_error(
    compiler: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    matcher = compiler.compile(ConstString("no limit")).matcher()
    assert not matcher.accept_token(vocabulary.tokens.index(b" limit"))


HOSTILE: dict[str, Constraint] = {
    "nested repeats": Regex("((a{1,1000}){1,1000}){1,1000}"),
    "long repeats": Regex(".{1,100000}"),
    "nested groups": Regex("(" * 10_000 + "a" + ")" * 10_000),
    "a megabyte of pattern": Regex("a?" * 500_000),
    "a megabyte of schema": JsonSchema(json.dumps({"enum": ["x" * 1_000_000]})),
    "nested schema": JsonSchema('{"items":' * 10_000 + "{}" + "}" * 10_000),
    "nested grammar": Grammar("root ::= " + "(" * 10_000 + '"a"' + ")" * 10_000),
    "a huge grammar": Grammar("\n".join(f'r{n} ::= "a" r{n + 1}' for n in range(20_000))),
    "an open grammar": Grammar('root ::= "a" other'),
}


@pytest.mark.parametrize("constraint", HOSTILE.values(), ids=HOSTILE)
def test_a_constraint_that_is_too_expensive_is_rejected(
    constraint: Constraint, compiler: GrammarCompiler
) -> None:
    with pytest.raises(RequestError):
        compiler.compile(constraint)


EXPENSIVE: dict[str, Constraint] = {
    "many long strings": JsonSchema(
        json.dumps({"properties": {f"p{n}": {"pattern": "^(.{1,50}a){1,50}$"} for n in range(200)}})
    ),
    "stars in stars": Regex("(a+)+$"),
    "overlapping": Regex("(a|aa|aaa)*b"),
    "far ahead": Regex("(a|b)*a(a|b){16}"),
    "dots": Regex("(.*a){20}"),
    "left recursion": Grammar('root ::= root "a" | "a"'),
    "ambiguity": Grammar('root ::= root root | "a" | "b"'),
    "a schema in itself": JsonSchema('{"anyOf": [{"$ref": "#"}, {"type": "null"}]}'),
    "a long string": JsonSchema('{"type": "string", "minLength": 400, "maxLength": 100000}'),
    "many items": JsonSchema(
        '{"type": "array", "items": {"type": "string", "maxLength": 99}, "minItems": 400}'
    ),
}


@pytest.mark.parametrize("constraint", EXPENSIVE.values(), ids=EXPENSIVE)
def test_a_constraint_that_compiles_is_fast_at_every_token(
    constraint: Constraint, compiler: GrammarCompiler, vocabulary: Vocabulary
) -> None:
    try:
        grammar = compiler.compile(constraint)
    except RequestError:
        return
    began = time.process_time()
    with contextlib.suppress(RequestError):  # the library's own limits, which fail one request
        Walker(vocabulary).text(grammar, 1, free=40, max_tokens=60)
    assert time.process_time() - began < 60 * 0.5  # no token took longer than a batch waits
