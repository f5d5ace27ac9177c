"""Next-token distributions of vLLM. It runs in vLLM's environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vllm import LLM, SamplingParams


def logits(options: dict[str, Any]) -> None:
    """Write the logits of the scored positions of windows: [windows, positions, vocabulary], float32.

    A request for the log-probabilities of its prompt makes vLLM compute the logits of all its tokens. They
    are recorded there: its answers would be a Python object for each of them.
    """
    llm = LLM(
        options["model"], dtype=options["dtype"], enforce_eager=True, max_model_len=1024, max_num_seqs=1
    )
    recorded: list[torch.Tensor] = []
    llm.apply_model(lambda model: _record(model, recorded))
    windows = json.loads(Path(options["windows"]).read_text())
    start, stop = options["positions"]
    sampling = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=1)
    rows = None
    for index, window in enumerate(windows):
        recorded.clear()
        llm.generate({"prompt_token_ids": window}, sampling, use_tqdm=False)
        result = max(recorded, key=len)[start:stop]
        if rows is None:
            shape = len(windows), stop - start, result.shape[-1]
            rows = np.lib.format.open_memmap(options["output"], "w+", np.float32, shape)
        rows[index] = result.numpy()


def _record(model: Any, recorded: list[torch.Tensor]) -> None:
    """Keep a copy of all logits that a model computes."""
    compute = model.compute_logits

    def compute_logits(hidden: torch.Tensor, *arguments: Any, **keywords: Any) -> torch.Tensor:
        values: torch.Tensor = compute(hidden, *arguments, **keywords)
        recorded.append(values.float().clone())
        return values

    model.compute_logits = compute_logits


if __name__ == "__main__":
    {"logits": logits}[sys.argv[1]](json.loads(sys.argv[2]))
