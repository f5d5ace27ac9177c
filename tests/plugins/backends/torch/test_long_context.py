"""Rotary embeddings that depend on the length of the sequence, through the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import model_families
from support.generation import Generation, prompt

from fllm.config import ModelImpl, Speculation

ORIGINAL = 128
NGRAM = Speculation(
    method="ngram", num_speculative_tokens=5, settings={"prompt_lookup_min": 1}, disable_by_batch_size=16
)
REPEATING = [(5 + 3 * (place % 7)) % 160 for place in range(200)]
SCATTERED = [(11 * place * place + 3) % 157 for place in range(200)]
PROMPTS = {
    "short": SCATTERED[:40],
    "becomes long": SCATTERED[:120],
    "repeats and becomes long": REPEATING[:110],
    "at the border": SCATTERED[:ORIGINAL],
    "long": SCATTERED[: ORIGINAL + 1],
    "longer, begins alike": SCATTERED[:170],
}
TOKENS = 30


@pytest.fixture(scope="module")
def phi(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    directory = tmp_path_factory.mktemp("phi")
    return directory, model_families.save("phi4-mini", directory)


@pytest.mark.parametrize(
    ("model_impl", "speculation"),
    [("native", None), ("native", NGRAM), ("transformers", NGRAM)],
    ids=["native", "native, with drafts", "transformers, with drafts"],
)
def test_longrope_switches_its_factors_where_transformers_does(
    phi: tuple[Path, Any], model_impl: ModelImpl, speculation: Speculation | None
) -> None:
    directory, theirs = phi
    theirs.generation_config.eos_token_id = None
    requests = [
        prompt(name, ids, max_tokens=TOKENS, ignore_eos=True, logprobs=0) for name, ids in PROMPTS.items()
    ]
    config = {"quantization": "none", "max_num_batched_tokens": 50, "model_impl": model_impl}
    ours = Generation(directory, requests, speculation, **config)
    for name, ids in PROMPTS.items():
        with torch.inference_mode():
            generated = theirs.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids)),
                max_new_tokens=TOKENS,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        assert ours.tokens[name] == generated.sequences[0, len(ids) :].tolist(), name
        expected = torch.cat(generated.logits).log_softmax(-1).amax(-1)
        found = torch.tensor([each.logprob for each in ours.logprobs[name]])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
