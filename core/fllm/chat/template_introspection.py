"""Find out from a template's source which messages it can render."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from jinja2 import nodes
from msgspec import Struct

CUT_METHODS = ("split", "rsplit", "partition", "rpartition", "replace", "removeprefix", "removesuffix")
"""Methods of a text that cut out the string that is their first argument."""
SEARCH_METHODS = (*CUT_METHODS, "startswith", "endswith", "find", "rfind", "index")
"""Methods of a text whose first argument is a string to look for."""
_ROLE = re.compile(r"[\w-]{1,64}")


class TemplateTraits(Struct, frozen=True):
    """Facts from a template's syntax tree; nothing is rendered."""

    loops_over_content: bool
    """The template accepts content that is a list of parts."""
    tests_for_string: bool
    """The template tests whether content is a string, so it accepts strings as well as lists."""
    mentions_developer: bool
    """The source mentions the role ``developer``."""
    uses_tools: bool
    """The source uses the variable ``tools``."""
    searched: frozenset[str]
    """Strings that the template looks for in a text, such as ``</think>``."""
    cut: frozenset[str]
    """Those of them that it cuts out, so that the texts around them may be joined."""
    roles: frozenset[str]
    """Texts with which the source compares roles."""


def template_traits(tree: nodes.Template) -> TemplateTraits:
    """Inspect what a template does with the content of messages."""
    names = _content_names(tree)
    tests = (test for test in tree.find_all(nodes.Test) if test.name == "string")
    return TemplateTraits(
        loops_over_content=any(_is_content(loop.iter, names) for loop in tree.find_all(nodes.For)),
        tests_for_string=any(_is_content(test.node, names) for test in tests),
        mentions_developer=any(const.value == "developer" for const in tree.find_all(nodes.Const)),
        uses_tools=any(name.name == "tools" for name in tree.find_all(nodes.Name)),
        searched=frozenset([*_compared(tree), *_arguments(tree, SEARCH_METHODS)]),
        cut=frozenset(_arguments(tree, CUT_METHODS)),
        roles=frozenset(_roles(tree)),
    )


def _compared(tree: nodes.Template) -> Iterator[str]:
    """Yield the strings of ``STRING in text``."""
    for compare in tree.find_all(nodes.Compare):
        if isinstance(compare.expr, nodes.Const) and any(each.op in ("in", "notin") for each in compare.ops):
            yield str(compare.expr.value)


def _arguments(tree: nodes.Template, methods: Collection[str]) -> Iterator[str]:
    """Yield the first arguments of methods, and of filters of the same name, that are strings."""
    for call in tree.find_all((nodes.Call, nodes.Filter)):
        match call:
            case nodes.Call(node=nodes.Getattr(attr=name), args=[nodes.Const(value=str(text)), *_]) | (
                nodes.Filter(name=name, args=[nodes.Const(value=str(text)), *_])
            ):
                if name in methods:
                    yield text


def _roles(tree: nodes.Template) -> Iterator[str]:
    for comparison in tree.find_all(nodes.Compare):
        texts = [each.value for each in comparison.find_all(nodes.Const) if isinstance(each.value, str)]
        if "role" in texts or any(each.attr == "role" for each in comparison.find_all(nodes.Getattr)):
            yield from (text for text in texts if _ROLE.fullmatch(text) and text != "role")


def _content_names(tree: nodes.Template) -> set[str]:
    """Return the variables and macro parameters that hold a message's content."""
    names: set[str] = set()
    macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
    while True:
        new_names = {
            assign.target.name
            for assign in tree.find_all(nodes.Assign)
            if isinstance(assign.target, nodes.Name) and _is_content(assign.node, names)
        }
        for call in tree.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and (macro := macros.get(call.node.name)):
                pairs = zip(macro.args, call.args, strict=False)
                new_names |= {parameter.name for parameter, value in pairs if _is_content(value, names)}
        if new_names <= names:
            return names
        names |= new_names


def _is_content(node: nodes.Node | None, names: set[str]) -> bool:
    """Return whether an expression is ``message.content`` in any notation, filtered or conditional."""
    match node:
        case nodes.Getattr(attr="content") | nodes.Getitem(arg=nodes.Const(value="content")):
            return True
        case nodes.Call(node=nodes.Getattr(attr="get"), args=[nodes.Const(value="content"), *_]):
            return True
        case nodes.Name(name=name):
            return name in names
        case nodes.Filter(node=inner):
            return _is_content(inner, names)
        case nodes.CondExpr(expr1=one, expr2=other) | nodes.Or(left=one, right=other):
            return _is_content(one, names) or _is_content(other, names)
        case _:
            return False
