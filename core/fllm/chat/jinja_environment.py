"""The sandboxed Jinja environment that Hugging Face's chat templates expect."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_LENGTH = 64 * 1024**2
"""Maximum length of a text or a list that one operation may create."""
MAX_INTEGER_BITS = 64 * 1024
"""Maximum size of an integer that one operation may create."""


class ConversationRejected(TemplateError):
    """Raised by a template that calls ``raise_exception`` to reject the conversation."""


class OversizedResult(SecurityError):
    """Raised by an operation of a template whose result would be too large."""


class GenerationBlock(Extension):
    """Renders the body of ``{% generation %}``, which marks the assistant's text for training."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        """Parse one block into a scope that contains its body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which products, powers and rendered texts have a maximum size.

    One operation of this kind could otherwise take all memory, or hours, and nothing can interrupt it.
    """

    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Multiply, or raise to a power. Raise `OversizedResult` if the result is too large."""
        if operator == "**":
            _check_power(left, right)
        else:
            _check_product(left, right)
        return super().call_binop(context, operator, left, right)

    @staticmethod
    def concat(texts: Iterable[str]) -> str:
        """Concatenate the parts of a text. Raise `OversizedResult` if it is too long."""
        parts = list(texts)
        _check_length(sum(map(len, parts)))
        return "".join(parts)


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    elif isinstance(left, int) and isinstance(right, str | bytes | list | tuple):
        _check_length(left * len(right))
    elif isinstance(right, int) and isinstance(left, str | bytes | list | tuple):
        _check_length(right * len(left))


def _check_power(base: Any, exponent: Any) -> None:
    if isinstance(base, int) and isinstance(exponent, int):
        _check_bits(base.bit_length() * abs(exponent))


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise OversizedResult(f"an operation creates a text or a list longer than {MAX_LENGTH}")


def _check_bits(bits: int) -> None:
    if bits > MAX_INTEGER_BITS:
        raise OversizedResult(f"an operation creates an integer of more than {MAX_INTEGER_BITS} bits")


@cache
def jinja_environment() -> BoundedEnvironment:
    """Return the environment that all templates share."""
    jinja = BoundedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    jinja.filters["tojson"] = tojson
    jinja.globals["raise_exception"] = raise_exception
    jinja.globals["strftime_now"] = strftime_now
    return jinja


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Serialize to JSON. Jinja's own filter escapes HTML, which models were not trained on."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def raise_exception(message: str) -> NoReturn:
    """Reject the conversation; raise `ConversationRejected`."""
    raise ConversationRejected(message)


def strftime_now(pattern: str) -> str:
    """Return the local time, formatted as by ``strftime``."""
    return datetime.now().strftime(pattern)
