"""Our decoder in torch operations, run in chunks and batches, compared with transformers."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.checkpoints.architecture import read_architecture
from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.checkpoint import Checkpoint
from fllm_backends.torch.model import CausalLM
from fllm_backends.torch.weights import CheckpointSource, load_weights

BLOCK_SIZE = 4
TOLERANCE = 1e-4


def native_decoder(directory: Path) -> CausalLM:
    """Return our decoder with the weights of a directory."""
    architecture = read_architecture(directory)
    source = CheckpointSource(Checkpoint(directory), torch.device("cpu"), torch.float32)
    return CausalLM(architecture, load_weights(architecture, source, lambda progress: None))


class Sequences:
    """Sequences whose blocks lie scattered in one cache, run chunk by chunk."""

    def __init__(self, model: CausalLM, *sequences: list[int]) -> None:
        """Create the cache. Each sequence has blocks of its own."""
        blocks = -(-max(map(len, sequences)) // BLOCK_SIZE)
        shuffled = torch.randperm(
            blocks * len(sequences), generator=torch.Generator().manual_seed(3)
        ).tolist()
        self._tables = [shuffled[i * blocks : (i + 1) * blocks] for i in range(len(sequences))]
        self._cache = KVCache(model.kv_shapes, len(shuffled), BLOCK_SIZE, torch.empty(0))
        self._model, self._sequences = model, sequences

    def logits(self, *chunks: tuple[int, int]) -> list[torch.Tensor]:
        """Run (start, count) of each sequence as one batch; the logits of each."""
        rows = [
            Row(
                token_ids=sequence, prompt_length=len(sequence), start=start, count=count, block_table=table,
                sampling=SamplingParams(max_tokens=1), seed=0, sample=False,
            )
            for sequence, table, (start, count) in zip(self._sequences, self._tables, chunks, strict=True)
            if count
        ]  # fmt: skip
        ids = torch.tensor([t for row in rows for t in row.token_ids[row.start : row.start + row.count]])
        with torch.inference_mode():
            hidden = self._model.forward(ids, AttentionBatch(rows, BLOCK_SIZE, ids.device), self._cache)
            return list(self._model.logits(hidden).split([row.count for row in rows]))


def check_chunked_logits(
    theirs: Any, directory: Path, *, lengths: tuple[int, int, int] = (41, 30, 17)
) -> None:
    """Assert that our logits equal those of a model of transformers, which is saved in the directory.

    One sequence is a whole prompt, one runs in chunks, one token by token; they are together in each batch.
    """
    vocabulary = theirs.config.get_text_config().vocab_size
    sequences = [
        [(3 + seed * place) % vocabulary for place in range(length)]
        for seed, length in zip((1, 5, 7), lengths, strict=True)
    ]
    with torch.inference_mode():
        expected = [theirs(torch.tensor([sequence])).logits[0] for sequence in sequences]
    run = Sequences(native_decoder(directory), *sequences)
    pieces: list[list[torch.Tensor]] = [[], [], []]
    first, second, third = lengths
    plan = [((0, first), (0, 11), (0, 1))]
    chunks = [(at, min(1 if at < 14 else 4, second - at)) for at in (11, 12, 13, *range(14, second, 4))]
    singles = [(at, 1) for at in range(1, third)]
    plan += [((0, 0), *pair) for pair in zip_longest(chunks, singles, fillvalue=(0, 0))]
    for step in plan:
        results = iter(run.logits(*step))
        for piece, (_, count) in zip(pieces, step, strict=True):
            if count:
                piece.append(next(results))
    for piece, wanted in zip(pieces, expected, strict=True):
        torch.testing.assert_close(torch.cat(piece), wanted, rtol=0, atol=TOLERANCE)
