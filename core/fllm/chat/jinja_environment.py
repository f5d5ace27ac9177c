"""The sandboxed Jinja environment that Hugging Face's chat templates expect."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cache, wraps
from string import Formatter
from types import BuiltinMethodType, MethodType
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_format, do_join, do_replace, do_round
from jinja2.nodes import EvalContext
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fllm.control_tokens import MARK

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


PADDING_METHODS = (
    "center",
    "expandtabs",
    "ljust",
    "rjust",
    "to_bytes",
    "translate",
    "zfill",
)
"""Methods whose result may be as long as the product of the lengths, or values, of its arguments."""
PADDING_FILTERS = ("batch", "center", "indent", "slice", "wordwrap")
"""The same for filters."""
MAX_PRECISION = 1000
"""Maximum number of decimals of ``round``."""
MAX_INDENT = 1000
"""Maximum length of the indent and of each separator of ``tojson``."""
_TOO_WIDE = "an operation creates a text by a format that is too wide"
_METHODS = (BuiltinMethodType, MethodType)
_WIDE_CONVERSION = re.compile(r"%(?:\([^)]*\))?[-#0 +]*+(?:\d*+\*|\d{4,}|\d*+\.(?:\*|\d{4,}))")
"""A conversion that ``%`` replaces, such as ``%1000s``, ``%*d`` or ``%.1000f``."""
_WIDE_FIELD = re.compile(r"\{|\d{4,}")
"""The part after the colon of a field that ``format`` replaces, such as ``{:1000}`` or ``{:{}}``."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox in which the result of one operation has a maximum size.

    One operation could otherwise take all memory, or hours, and nothing can interrupt it.
    """

    intercepted_binops = frozenset(("*", "**", "%"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filters |= {name: _bounded(self.filters[name]) for name in PADDING_FILTERS}
        self.filters |= {"format": _format, "join": _join, "replace": _replace, "round": _round}

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute a product, a power or a remainder. Raise `OversizedResult` if the result is too large."""
        _CHECKS[operator](left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or a method. Raise `OversizedResult` if the result may be too large."""
        if type(obj) in _METHODS:
            if obj.__name__ in PADDING_METHODS:
                _check_padding((obj.__self__, *args, *kwargs.values()))
            elif obj.__name__ == "replace":
                _check_replacement(obj.__self__, *args)
            elif obj.__name__ == "join":
                args = tuple(map(_listed, args))
                _check_joined(obj.__self__, *args)
        if not self.is_safe_callable(obj):
            raise SecurityError(f"{obj!r} is not safely callable")
        return context.call(obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Any:
        """Return the safe ``format`` of a text; raise `OversizedResult` if it has a wide field."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_fields(value.__self__)
        return wrapped

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


def _check_conversions(text: Any, _: Any = None) -> None:
    if isinstance(text, bytes) or (isinstance(text, str) and _WIDE_CONVERSION.search(text)):
        raise OversizedResult(_TOO_WIDE)


def _check_fields(text: str) -> None:
    if any(spec and _WIDE_FIELD.search(spec) for _, _, spec, _ in Formatter().parse(text)):
        raise OversizedResult(_TOO_WIDE)


_CHECKS = {"*": _check_product, "**": _check_power, "%": _check_conversions}


def _check_padding(values: Iterable[Any]) -> None:
    """Raise `OversizedResult` if the product of the lengths of texts, and of integers, is too large."""
    _check_length(math.prod(max(1, _size(value)) for value in values))


def _check_replacement(text: Any, old: Any = None, new: Any = None, _count: Any = None) -> None:
    if all(isinstance(each, str | bytes) for each in (text, old, new)):
        _check_length(len(text) + text.count(old) * len(new))


def _check_joined(separator: Any, items: Any = ()) -> None:
    if isinstance(separator, str | bytes) and isinstance(items, str | list | tuple):
        _check_length(len(separator) * len(items) + _size(items))


def _listed(value: Any) -> Any:
    """Return a list of what is iterated, such as a generator, whose length is not known."""
    known = isinstance(value, str | list | tuple) or not isinstance(value, Iterable)
    return value if known else list(value)


def _size(value: Any) -> int:
    if isinstance(value, int):
        return abs(value)
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        return _size(list(value.values()))
    if isinstance(value, list | tuple):
        return sum(len(item) if isinstance(item, str) else 1 for item in value)
    return 1


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that raises `OversizedResult` if its result may be too large."""

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _check_padding((*args, *kwargs.values()))
        return function(*args, **kwargs)

    return bounded


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    _check_conversions(str(value))
    return do_format(value, *args, **kwargs)


@pass_eval_context
def _join(eval_ctx: EvalContext, value: Any, d: str = "", attribute: str | int | None = None) -> Any:
    items = _listed(value)
    _check_joined(str(d), items)
    return do_join(eval_ctx, items, d, attribute)


@pass_eval_context
def _replace(eval_ctx: EvalContext, text: Any, old: str, new: str, count: int | None = None) -> str:
    _check_replacement(str(text), str(old), str(new))
    return do_replace(eval_ctx, text, old, new, count)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    if not -MAX_PRECISION <= precision <= MAX_PRECISION:
        raise OversizedResult(f"an operation creates a number of {precision} decimals")
    return do_round(value, precision, method)


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise OversizedResult(f"an operation creates a text or a list longer than {MAX_LENGTH}")


def _check_bits(bits: int) -> None:
    if bits > MAX_INTEGER_BITS:
        raise OversizedResult(f"an operation creates an integer of more than {MAX_INTEGER_BITS} bits")


_ESCAPED_MARK = json.dumps(MARK)[1:-1]


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
    if any(_size(each) > MAX_INDENT for each in (indent, *(separators or ()))):
        raise OversizedResult(f"an operation creates a text with an indent of more than {MAX_INDENT}")
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return text.replace(_ESCAPED_MARK, MARK) if ensure_ascii else text


def raise_exception(message: str) -> NoReturn:
    """Reject the conversation; raise `ConversationRejected`."""
    raise ConversationRejected(message)


def strftime_now(pattern: str) -> str:
    """Return the local time, formatted as by ``strftime``."""
    return datetime.now().strftime(pattern)
