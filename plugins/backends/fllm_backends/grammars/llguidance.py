"""The llguidance grammar backend, which compiles incrementally, within limits, while it computes masks."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec

from fllm import CompiledGrammar, Constraint, GrammarContext, RequestError, Vocabulary
from fllm_backends.grammars.compile_workers import CompileWorkers
from fllm_backends.grammars.lark import to_lark

log = logging.getLogger("fllm.grammars")

Encode = Callable[[str], list[int]]

LIMIT_ERROR = re.compile("(?!token ).*(limit|max is|too many|too big)")
"""Errors that report a limit of the library, unlike those of a token that the grammar does not allow."""


class LLGuidance:
    """A `GrammarCompiler`. A grammar that a worker compiled in time is compiled again in this process."""

    def __init__(self, context: GrammarContext) -> None:
        self._vocabulary = context.vocabulary
        self._encode = context.encode
        self._workers = CompileWorkers(make_compiler, context.vocabulary)

    def compile(self, constraint: Constraint) -> CompiledGrammar:
        """Compile a constraint. Raise `RequestError` if it is unsupported or too slow."""
        source, notes = msgspec.json.decode(self._workers.run(constraint), type=tuple[str, list[str]])
        if notes:
            log.info("A JSON schema is not enforced as it stands: %s", "; ".join(notes))
        return _CompiledGrammar(_matcher(self._tokenizer, source), len(source))

    def close(self) -> None:
        """Stop the workers."""
        self._workers.stop()

    @cached_property
    def _tokenizer(self) -> Any:
        return _tokenizer(self._vocabulary(), self._encode)


def make_compiler(vocabulary: Vocabulary) -> Callable[[Constraint], bytes]:
    """Return the function that a worker runs: compile, and return the source and notes if that succeeds."""
    tokenizer = _tokenizer(vocabulary)

    def compile(constraint: Constraint) -> bytes:
        notes: list[str] = []
        source = to_lark(constraint, notes.append)
        matcher = _matcher(tokenizer, source)
        matcher.compute_bitmask()
        _check(matcher)
        return msgspec.json.encode((source, notes))

    return compile


def _matcher(tokenizer: Any, source: str) -> Any:
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(verbose_errors=False)
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(source), log_level=0, limits=limits)
    _check(matcher)
    return matcher


def _check(matcher: Any) -> None:
    if matcher.is_error():
        text = error_text(matcher).replace("NoExtensionBias", "a string of it can't satisfy all its keywords")
        raise RequestError(f"the grammar can't be compiled: {text}")


def error_text(matcher: Any) -> str:
    """Return the beginning of the library's error message, as one line."""
    text = " ".join(matcher.get_error().removesuffix("<non-verbose/>").split())
    return text.removeprefix("Parser Error: ")[:300]


def _tokenizer(vocabulary: Vocabulary, encode: Encode | None = None) -> Any:
    from llguidance import LLTokenizer, TokenizerWrapper

    adapter = _VocabularyAdapter(vocabulary, encode)
    return LLTokenizer(TokenizerWrapper(adapter), n_vocab=len(vocabulary.tokens))


class _VocabularyAdapter:
    """Adapts a vocabulary to the interface that `TokenizerWrapper` requires."""

    def __init__(self, vocabulary: Vocabulary, encode: Encode | None) -> None:
        self._encode = encode
        self.eos_token_id = vocabulary.eos_token_ids[0] if vocabulary.eos_token_ids else 0
        self.bos_token_id = None
        self.tokens = vocabulary.tokens
        self.special_token_ids: list[int] = []
        self._ids = {token: token_id for token_id, token in enumerate(vocabulary.tokens) if token}
        self._longest = max(map(len, self._ids), default=1)

    def __call__(self, text: str | bytes) -> list[int]:
        """Return the tokens that the model's tokenizer gives a text inside another text."""
        data = text.encode() if isinstance(text, str) else text
        # Some tokenizers put a space before a text, but not after a control character.
        for before in (b"", b"\x02"):
            token_ids = self._encode((before + data).decode(errors="replace")) if self._encode else []
            start = next((n for n in range(4) if self._text(token_ids[:n]).endswith(before)), 0)
            if self._text(token_ids[start:]) == data:
                return token_ids[start:]
        return self._longest_matches(data)

    def _text(self, token_ids: list[int]) -> bytes:
        return b"".join(self.tokens[each] for each in token_ids)

    def _longest_matches(self, rest: bytes) -> list[int]:
        """Tokenize what the tokenizer can't write, such as a special token that is not visible."""
        token_ids = []
        while rest:
            lengths = range(min(self._longest, len(rest)), 0, -1)
            length = next((length for length in lengths if rest[:length] in self._ids), 0)
            if not length:
                break
            token_ids.append(self._ids[rest[:length]])
            rest = rest[length:]
        return token_ids


class _CompiledGrammar:
    def __init__(self, matcher: Any, size: int) -> None:
        self._matcher = matcher
        self.size = size * 16
        """An estimate: the lexer grows in use, and the library does not report its size."""

    def matcher(self) -> _Matcher:
        return _Matcher(self._matcher.deep_copy())


class _Matcher:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill_bitmask(self, mask: memoryview) -> None:
        bits: bytes = self._matcher.compute_bitmask()
        self._check_limits()
        if self._matcher.is_error():
            raise ValueError(error_text(self._matcher))
        own = mask.cast("B")
        own[: len(bits)] = bits[: len(own)]

    def accept_token(self, token_id: int) -> bool:
        accepted: bool = self._matcher.consume_token(token_id)
        if not accepted:
            self._check_limits()
        return accepted

    def forced_tokens(self) -> list[int]:
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    @property
    def is_accepting(self) -> bool:
        complete: bool = self._matcher.is_accepting()
        return complete

    def _check_limits(self) -> None:
        """Raise `RequestError` if the text is too complex for the library's limits."""
        if LIMIT_ERROR.match(text := error_text(self._matcher)):
            raise RequestError(f"the grammar is too complex: {text}")
