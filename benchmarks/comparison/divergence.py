"""The KL divergence of each engine's next-token distributions from those of the float32 model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch
from peers import PEERS, Setup
from quality import PROSE, SCORED, WINDOW, Engine, Score, windows
from torch import Tensor

from fllm.config import BackendConfig
from fllm.tokenizer import Tokenizer

TEXT = "\n".join(topics[chapter] for chapter in PROSE)


def divergence_of_ours(setup: Setup, tokens: int) -> dict[str, float]:
    """Score the default mode of this server over at least this number of predictions."""
    exact, texts = _reference(setup, tokens)
    with torch.inference_mode():
        engine = Engine(BackendConfig(model=str(setup.gguf)))
        return _score(exact, (engine.logits(ids, 0, WINDOW)[SCORED] for ids in texts))


def divergence_of_peer(setup: Setup, kind: str, form: str, tokens: int) -> dict[str, float]:
    """Score a peer. Raise `peers.Unavailable` if it gives no distributions."""
    exact, texts = _reference(setup, tokens)
    return _score(exact, PEERS[kind](setup, form).logits(TEXT, texts))


def _score(exact: np.ndarray, candidates: Iterable[Tensor]) -> dict[str, float]:
    score = Score()
    for reference, candidate in zip(exact, candidates, strict=True):
        score.add(torch.from_numpy(reference.copy()), candidate)
    divergences, agreements = torch.cat(score.divergences), torch.cat(score.agreements)
    return {
        "mean_kl": float(divergences.mean()),
        "p99_kl": float(divergences.quantile(0.99)),
        "same_top_token": float(agreements.float().mean()),
    }


def _reference(setup: Setup, tokens: int) -> tuple[np.ndarray, list[list[int]]]:
    """Return the float32 model's logits, [windows, positions, vocabulary], and the windows' token ids.

    They are computed once for each file, and kept in the directory.
    """
    name = f"reference-{setup.gguf.stem}-{tokens}"
    rows, ids = setup.directory / f"{name}.npy", setup.directory / f"{name}.json"
    if not (rows.exists() and ids.exists()):
        engine = Engine(BackendConfig(model=str(setup.gguf), quantization="none"))
        texts = windows(Tokenizer.load(Path(engine.card.tokenizer)), TEXT, tokens)
        with torch.inference_mode():
            logits = [engine.logits(each, 0, WINDOW)[SCORED].numpy() for each in texts]
        np.save(rows, np.stack(logits))
        ids.write_text(json.dumps(texts))
    return np.load(rows, mmap_mode="r"), json.loads(ids.read_text())
