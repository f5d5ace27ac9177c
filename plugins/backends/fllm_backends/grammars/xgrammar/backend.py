"""The xgrammar grammar backend. A worker process compiles; this process loads the result."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from fllm import CompiledGrammar, Constraint, GrammarContext, RequestError, Vocabulary
from fllm_backends.grammars.compile_workers import CompileWorkers
from fllm_backends.grammars.xgrammar.imports import import_xgrammar
from fllm_backends.grammars.xgrammar.structural_tags import structural_tag


class XGrammar:
    """A `GrammarCompiler`."""

    def __init__(self, context: GrammarContext) -> None:
        self._vocabulary = context.vocabulary
        self._workers = CompileWorkers(make_compiler, context.vocabulary)

    def compile(self, constraint: Constraint) -> CompiledGrammar:
        """Compile a constraint. Raise `RequestError` if it is unsupported or too slow."""
        text = self._workers.run(constraint).decode()
        xgrammar = import_xgrammar()
        return _CompiledGrammar(xgrammar.CompiledGrammar.deserialize_json(text, self._tokenizer_info))

    def close(self) -> None:
        """Stop the workers."""
        self._workers.stop()

    @cached_property
    def _tokenizer_info(self) -> Any:
        return _tokenizer_info(self._vocabulary())


def make_compiler(vocabulary: Vocabulary) -> Callable[[Constraint], bytes]:
    """Return the function that a worker runs."""
    xgrammar = import_xgrammar()
    compiler = xgrammar.GrammarCompiler(_tokenizer_info(vocabulary), max_threads=1, cache_enabled=False)

    def compile(constraint: Constraint) -> bytes:
        try:
            tag = structural_tag(constraint)
            compiled: str = compiler.compile_structural_tag(tag).serialize_json()
        except (RuntimeError, ValueError) as error:
            raise RequestError(f"the grammar can't be compiled: {error_text(error)}") from None
        return compiled.encode()

    return compile


def error_text(error: Exception) -> str:
    """Return the library's error message without the location in its sources."""
    text = " ".join(str(error).split())
    return text.partition(".cc:")[2].partition(": ")[2] or text


def _tokenizer_info(vocabulary: Vocabulary) -> Any:
    xgrammar = import_xgrammar()
    return xgrammar.TokenizerInfo(
        vocabulary.tokens, vocab_size=len(vocabulary.tokens), stop_token_ids=list(vocabulary.eos_token_ids)
    )


class _CompiledGrammar:
    def __init__(self, grammar: Any) -> None:
        self._grammar = grammar
        self.size: int = grammar.memory_size_bytes

    def matcher(self) -> _Matcher:
        return _Matcher(import_xgrammar().GrammarMatcher(self._grammar))


class _Matcher:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill_bitmask(self, mask: memoryview) -> None:
        import numpy as np

        self._matcher.fill_next_token_bitmask(np.frombuffer(mask, np.int32)[None, :])

    def accept_token(self, token_id: int) -> bool:
        accepted: bool = self._matcher.accept_token(token_id)
        return accepted

    @property
    def is_accepting(self) -> bool:
        complete: bool = self._matcher.is_completed()
        return complete
