from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import msgspec
import pytest
from support.random_texts import Walker

from fllm import CompiledGrammar, Constraint, GrammarCompiler, GrammarContext, ModelCard, Vocabulary
from fllm.model.source import locate
from fllm.structured_output.interfaces import read_vocabulary
from fllm.tokenizer import Tokenizer
from fllm_backends.checkpoints.download import fetch_tokenizer_files
from fllm_backends.grammars.llguidance import (
    LLGuidance,
    _CompiledGrammar,
    _matcher,
    _tokenizer,
    make_compiler,
)
from fllm_backends.grammars.xgrammar.backend import XGrammar


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Return the embedded model's tokenizer."""
    return Tokenizer.load(fetch_tokenizer_files(locate().location, None, lambda progress: None).directory)


@pytest.fixture(scope="session")
def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Return the embedded model's vocabulary."""
    card = ModelCard(tokenizer="", max_model_len=1, eos_token_ids=(2, 0), runtime={"vocab_size": 49152})
    return read_vocabulary(card, tokenizer)


@pytest.fixture(scope="session")
def context(vocabulary: Vocabulary, tokenizer: Tokenizer) -> GrammarContext:
    encode = partial(tokenizer.encode, add_special_tokens=False)
    return GrammarContext(vocabulary=lambda: vocabulary, encode=encode)


@pytest.fixture(scope="session")
def llguidance(context: GrammarContext) -> Iterator[GrammarCompiler]:
    """Return a compiler of the default grammar backend."""
    with closing(LLGuidance(context)) as made:
        yield made


@pytest.fixture(scope="session", params=["llguidance", "xgrammar"])
def compiler(request: pytest.FixtureRequest, context: GrammarContext) -> Iterator[GrammarCompiler]:
    """Return a compiler of each grammar backend."""
    if request.param == "llguidance":
        yield request.getfixturevalue("llguidance")
        return
    pytest.importorskip("xgrammar")
    with closing(XGrammar(context)) as made:
        yield made


@pytest.fixture(scope="session")
def walker(vocabulary: Vocabulary) -> Walker:
    return Walker(vocabulary)


@pytest.fixture(scope="session")
def compile(vocabulary: Vocabulary) -> Callable[[Constraint], CompiledGrammar]:
    """Return a function that compiles with llguidance in this process."""
    to_source, library = make_compiler(vocabulary), _tokenizer(vocabulary)

    def compile(constraint: Constraint) -> CompiledGrammar:
        source, _ = msgspec.json.decode(to_source(constraint))
        return _CompiledGrammar(_matcher(library, source), 1)

    return compile
