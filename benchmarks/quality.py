"""Measure what the default mode on a CPU costs in quality, compared with the float32 model.

::

    python benchmarks/quality.py
    python benchmarks/quality.py --llama-perplexity PATH --gguf Q8_0=model-q8_0.gguf --gguf F32=model-f32.gguf

The measure is the divergence of the next-token distributions. The text is read in windows of 512 tokens, and
the second half of each is scored, like llama.cpp's ``llama-perplexity`` does. So llama.cpp's models are
compared on the same tokens, with the same function. The script also checks that decoding one token at a time
gives the logits of the whole window, to the bit.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from pydoc_data.topics import topics
from tempfile import TemporaryDirectory

import llama_logits
import torch
from llama_logits import FLOOR, Stored
from torch import Tensor

from fllm.batching.runner import Row
from fllm.config import BackendConfig, Device
from fllm.model import locate
from fllm.tokenizer import Tokenizer
from fllm.values import SamplingParams
from fllm_backends.torch.attention import AttentionBatch, KVCache
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner

PROSE = "execmodel", "types", "debugger", "specialnames"
"""Chapters of Python's documentation, which every interpreter includes: English, with some code."""

WINDOW = 512
SCORED = llama_logits.scored(WINDOW)
BLOCK_SIZE = 16


class Engine:
    """A decoder as the server would load it, which returns all logits."""

    def __init__(self, config: BackendConfig) -> None:
        runner = TorchRunner(read_torch_config(config), Device("cpu"), max_num_seqs=1)
        self.card = runner.load(lambda _: None)
        self._decoder = runner.decoder  # the runner itself returns tokens, not distributions
        blocks = WINDOW // BLOCK_SIZE
        self._table = list(range(blocks))
        self._cache = KVCache(self._decoder.kv_shapes, blocks, BLOCK_SIZE, like=torch.empty(0))

    def logits(self, ids: list[int], start: int, stop: int) -> Tensor:
        """Return the logits of the tokens from ``start`` to ``stop``, [tokens, vocabulary], in one pass."""
        row = Row(
            token_ids=ids,
            prompt_length=len(ids),
            start=start,
            count=stop - start,
            block_table=self._table,
            sampling=SamplingParams(max_tokens=1),
            seed=0,
            sample=True,
        )
        batch = AttentionBatch([row], BLOCK_SIZE, self._decoder.device)
        hidden = self._decoder.forward(torch.tensor(ids[start:stop]), batch, self._cache)
        return self._decoder.logits(hidden)

    def decoded(self, ids: list[int], start: int, stop: int) -> Tensor:
        """Return the same logits, computed one token at a time."""
        self.logits(ids, 0, start)
        return torch.cat([self.logits(ids, at, at + 1) for at in range(start, stop)])


@dataclass
class Score:
    """One model compared with the reference, over all positions so far."""

    divergences: list[Tensor] = field(default_factory=list)
    agreements: list[Tensor] = field(default_factory=list)

    def add(self, reference: Tensor, candidate: Tensor) -> None:
        """Add the logits or log-probabilities of some positions: [positions, vocabulary] each."""
        self.divergences.append(divergence(reference, candidate))
        self.agreements.append(reference.argmax(-1) == candidate.argmax(-1))

    def __str__(self) -> str:
        divergences, agreement = torch.cat(self.divergences), torch.cat(self.agreements).float().mean()
        worst = divergences.quantile(0.99)
        return f"{divergences.mean():.5f} | {worst:.4f} | {100 * agreement:.1f} %"


def divergence(reference: Tensor, candidate: Tensor) -> Tensor:
    """Return KL(reference || candidate) in nats: [positions, vocabulary] to [positions].

    Both are floored like llama.cpp's file; otherwise its models would be charged for what the file leaves
    out.
    """
    p, q = floored(reference).log_softmax(-1), floored(candidate).log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def floored(logits: Tensor) -> Tensor:
    """Raise logits that are more than ``FLOOR`` below the largest of their row."""
    return logits.maximum(logits.amax(-1, keepdim=True) - FLOOR)


def windows(tokenizer: Tokenizer, text: str, scored: int) -> list[list[int]]:
    """Return the first windows of ``WINDOW`` ids of a text that together have ``scored`` scored positions."""
    count = -(-scored // (SCORED.stop - SCORED.start))
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) < count * WINDOW:
        raise SystemExit(f"the text has {len(ids)} tokens, and {count * WINDOW} are needed")
    return [ids[at : at + WINDOW] for at in range(0, count * WINDOW, WINDOW)]


def peers(
    options: argparse.Namespace, text: str, texts: list[list[int]], directory: Path
) -> dict[str, Stored]:
    """Return llama.cpp's distributions for the same text, by name. Its files are written to ``directory``."""
    (directory / "text").write_text(text)
    stored = {}
    for name, model in (file.split("=", 1) for file in options.gguf):
        llama_logits.save(
            options.llama_perplexity, model, directory / "text", WINDOW, len(texts), directory / name
        )
        stored[name] = llama_logits.read(directory / name)
        if stored[name].tokens != list(chain.from_iterable(texts)):
            raise SystemExit(f"{model}: llama.cpp tokenizes the text differently")
    return stored


def measure(options: argparse.Namespace, directory: Path) -> dict[str, Score]:
    """Score the default decoder and llama.cpp's models. ``directory`` is for large temporary files."""
    model = locate(options.model).location
    reference = Engine(BackendConfig(model=model, quantization="none"))
    ours = Engine(BackendConfig(model=model))
    name = f"ours, {ours.card.runtime['quantization'] or ours.card.runtime['dtype']}"
    text = options.text.read_text() if options.text else "\n".join(topics[chapter] for chapter in PROSE)
    texts = windows(Tokenizer.load(Path(ours.card.tokenizer)), text, options.tokens)
    others = peers(options, text, texts, directory)
    scores = {name: Score() for name in (name, *others)}
    for index, ids in enumerate(texts):
        exact = reference.logits(ids, 0, WINDOW)[SCORED]
        scores[name].add(exact, ours.logits(ids, 0, WINDOW)[SCORED])
        for other, stored in others.items():
            scores[other].add(exact, stored.window(index))
    print(
        f"decoded one at a time: logits at most {max_difference(ours, texts[0]):g} "
        "from those of the whole window"
    )
    return scores


def max_difference(engine: Engine, ids: list[int]) -> float:
    """Return the largest difference between the logits of a whole window and those of one token at a time."""
    whole = engine.logits(ids, 0, WINDOW)[SCORED]
    return float((whole - engine.decoded(ids, SCORED.start, SCORED.stop)).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="as `furiosa-llm serve` takes it")
    parser.add_argument("--text", type=Path, help="a file; else chapters of Python's documentation")
    parser.add_argument("--tokens", type=int, default=4096, help="predictions to score, at least")
    parser.add_argument("--llama-perplexity", default="llama-perplexity", metavar="PATH")
    parser.add_argument(
        "--gguf", action="append", default=[], metavar="NAME=FILE", help="a model of llama.cpp"
    )
    options = parser.parse_args()
    with TemporaryDirectory() as directory, torch.inference_mode():
        scores = measure(options, Path(directory))
    print("| | mean KL | 99th percentile | same top token |\n|---|---|---|---|")
    for name, score in scores.items():
        print(f"| {name} | {score} |")


if __name__ == "__main__":
    main()
