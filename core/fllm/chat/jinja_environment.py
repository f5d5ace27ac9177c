"""Jinja as Hugging Face's chat templates expect it, in a sandbox."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Rejected(TemplateError):
    """The template itself refuses the conversation, by ``raise_exception``."""


class GenerationBlock(Extension):
    """``{% generation %}`` marks the assistant's own words for training; here it only shows them."""

    tags = {"generation"}  # noqa: RUF012 (as jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        """Read one block: its body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


@cache
def environment() -> ImmutableSandboxedEnvironment:
    """The environment of all templates."""
    jinja = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    jinja.filters["tojson"] = _tojson
    jinja.globals["raise_exception"] = _raise_exception
    jinja.globals["strftime_now"] = _strftime_now
    return jinja


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise Rejected(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
