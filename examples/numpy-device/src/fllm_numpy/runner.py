"""The model runner, whose methods `fllm.batching` calls from one thread."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fllm import ModelCard, Progress, TokenLogprob
from fllm.batching import (
    Row,
    RunnerCapabilities,
    Sampled,
    check_length,
    expand_drafts,
    verify_drafts,
)
from fllm_numpy.cache import KVCache
from fllm_numpy.gguf_file import Array, GgufFile
from fllm_numpy.llama import Llama
from fllm_numpy.sampler import sample, token_logprob
from fllm_numpy.tokenizer import write_tokenizer

PROMPT_LOGITS_CHUNK = 64
"""Number of prompt positions whose logits are in memory at the same time."""


class NumpyRunner:
    """A `ModelRunner` with one model, its KV cache, and the directory of its tokenizer."""

    capabilities = RunnerCapabilities(applies_masks=True, verifies_drafts=True)
    _model: Llama
    _cache: KVCache
    _eos: tuple[int, ...]
    _directory: TemporaryDirectory[str]

    def __init__(self, path: Path, cache_tokens: int, max_model_len: int | None = None) -> None:
        self._path = path
        self._cache_tokens = cache_tokens
        self._max_model_len = max_model_len

    def load(self, progress: Callable[[Progress], None]) -> ModelCard:
        """Dequantize the weights, and write the tokenizer to a directory for the server."""
        file = GgufFile(self._path)
        length = file.of_model("context_length")
        check_length(length, self._max_model_len)
        self._directory = TemporaryDirectory(prefix="fllm-numpy-")
        write_tokenizer(file, Path(self._directory.name))
        self._model = Llama(file, lambda done, total: progress(Progress("Dequantizing", done, total)))
        eos = file.get("tokenizer.ggml.eos_token_id")
        self._eos = () if eos is None else (eos,)
        with self._path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return ModelCard(
            tokenizer=self._directory.name,
            max_model_len=length,
            eos_token_ids=self._eos,
            artifact_id=digest,
            runtime={"device": "numpy", "dtype": "float32", "vocab_size": self._model.vocab_size},
        )

    def allocate(self, block_size: int) -> int:
        """Allocate the configured number of tokens in blocks, and return the number of blocks."""
        model, blocks = self._model, self._cache_tokens // block_size
        self._cache = KVCache(model.layer_count, blocks, block_size, model.kv_heads, model.head_dim)
        return blocks

    def execute(self, batch: Sequence[Row]) -> Sequence[Sampled]:
        """Run the model once over all rows, compute logits where a row is sampled, and sample."""
        hidden = self._model.forward(batch, self._cache)
        pieces = np.split(hidden, np.cumsum([row.count for row in batch])[:-1])
        expanded = [expand_drafts(row) for row in batch]
        last = [piece[len(piece) - len(rows) :] for piece, rows in zip(pieces, expanded, strict=True)]
        logits = iter(self._model.logits(np.concatenate(last)))
        return [
            self._sampled(row, [(end, next(logits)) for end in rows], piece)
            for row, rows, piece in zip(batch, expanded, pieces, strict=True)
        ]

    def close(self) -> None:
        """Free the weights and the cache, and delete the tokenizer."""
        self.__dict__.pop("_model", None)
        self.__dict__.pop("_cache", None)
        self._directory.cleanup()

    def _sampled(self, row: Row, samples: Sequence[tuple[Row, Array]], hidden: Array) -> Sampled:
        tokens = [sample(end, logits, self._eos) for end, logits in samples]
        top = row.sampling.logprobs
        logprobs = [
            None if top is None else token_logprob(logits, token, top)
            for token, (_, logits) in zip(tokens, samples, strict=True)
        ]
        return verify_drafts(row, tokens, logprobs, self._prompt_logprobs(row, hidden))

    def _prompt_logprobs(self, row: Row, hidden: Array) -> list[TokenLogprob]:
        if not row.prompt_logprobs:
            return []
        first, top = row.start + 1, row.sampling.prompt_logprobs or 0
        tokens = row.token_ids[first : min(first + row.count, row.prompt_length)]
        logprobs: list[TokenLogprob] = []
        for at in range(0, len(tokens), PROMPT_LOGITS_CHUNK):
            part = tokens[at : at + PROMPT_LOGITS_CHUNK]
            logits = self._model.logits(hidden[at : at + len(part)])
            logprobs += [token_logprob(each, token, top) for each, token in zip(logits, part, strict=True)]
        return logprobs
