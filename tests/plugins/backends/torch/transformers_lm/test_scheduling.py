"""Models of transformers under the scheduler: preemption, chunks, factors by length, and what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.model_families import build, save

from fllm import BackendConfig, BackendContext, GenerateRequest, SamplingParams
from fllm.config import Speculation
from fllm.errors import ConfigError, ModelError
from fllm.plugins.loader import load_plugins
from fllm.testing import echo_model
from fllm.values import EngineStats, ModelCard
from fllm_backends.torch.backend import torch_backend

PROMPTS = [[(3 * i * i + seed * i + 7) % 140 + 12 for i in range(10 + 5 * seed)] for seed in range(5)]


def assert_greedy(model: Any, prompt: list[int], text: list[int]) -> None:
    """Each token is the likeliest by transformers' own forward pass over the whole text."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt + text])).logits[0]
    assert text == logits[len(prompt) - 1 : -1].argmax(-1).tolist()


async def generate_all(
    directory: Path, prompts: list[list[int]], count: int, *, memory: str = "8MB", **config: Any
) -> tuple[list[list[int]], EngineStats, ModelCard]:
    """Tokens of all prompts at once."""
    backend = torch_backend(
        BackendConfig(
            model=str(directory),
            model_impl="transformers",
            quantization="none",
            options={"threads": "1", "kv_cache_memory": memory},
            **config,
        ),
        BackendContext(load_drafter=load_plugins().drafters.load),
    )
    card = await backend.start()

    async def one(index: int) -> list[int]:
        sampling = SamplingParams(max_tokens=count, temperature=0.0, ignore_eos=True)
        request = GenerateRequest(f"r{index}", prompts[index], sampling)
        return [token async for output in backend.generate(request) for token in output.token_ids]

    try:
        texts = list(await asyncio.gather(*(one(index) for index in range(len(prompts)))))
        return texts, await backend.status(), card
    finally:
        await backend.stop()


@pytest.mark.parametrize(("family", "memory"), [("qwen3.5", "40KB"), ("jamba", "80KB"), ("mamba2", "1KB")])
def test_preempted_sequences_with_states_continue_as_they_would_have(
    family: str, memory: str, tmp_path: Path
) -> None:
    model = save(family, echo_model(tmp_path))
    texts, stats, card = asyncio.run(
        generate_all(tmp_path, PROMPTS, 8, memory=memory, max_num_seqs=4, max_num_batched_tokens=16)
    )
    for prompt, text in zip(PROMPTS, texts, strict=True):
        assert len(text) == 8
        assert_greedy(model, prompt, text)
    assert bool(stats.preemptions) == (family != "mamba2"), "which has no keys and values"
    assert (card.recurrent, card.runtime["enable_prefix_caching"]) == (True, False)
    assert card.runtime["model_impl"] == "transformers"


def test_a_long_sequence_has_its_own_rotary_factors_beside_short_ones(tmp_path: Path) -> None:
    model = save("phi4-mini", echo_model(tmp_path))
    prompts = [[(7 * i * i + i) % 140 + 12 for i in range(150)], *PROMPTS[:2]]
    texts, _, _ = asyncio.run(
        generate_all(tmp_path, prompts, 4, max_num_batched_tokens=40, enable_prefix_caching=False)
    )
    for prompt, text in zip(prompts, texts, strict=True):
        assert len(text) == 4
        assert_greedy(model, prompt, text)


def test_a_shared_prefix_is_computed_once(tmp_path: Path) -> None:
    model = save("gemma4", echo_model(tmp_path))
    prompts = [PROMPTS[4] + [end] for end in (20, 30, 40)]
    texts, stats, card = asyncio.run(generate_all(tmp_path, prompts, 4, max_num_batched_tokens=64))
    for prompt, text in zip(prompts, texts, strict=True):
        assert len(text) == 4
        assert_greedy(model, prompt, text)
    assert stats.prefix_hits > 0
    assert (card.recurrent, card.runtime["enable_prefix_caching"]) == (False, True)


def test_drafts_from_the_prompt_change_no_token(tmp_path: Path) -> None:
    model = save("gpt-oss", echo_model(tmp_path))
    prompt = PROMPTS[1] * 3
    speculation = Speculation(method="ngram", num_speculative_tokens=4, settings={"prompt_lookup_min": 1})
    texts, stats, _ = asyncio.run(generate_all(tmp_path, [prompt], 30, speculative_config=speculation))
    assert len(texts[0]) == 30
    assert_greedy(model, prompt, texts[0])
    assert stats.drafted > 0


def refusal(directory: Path, kind: type[Exception] = ModelError, **config: Any) -> str:
    with pytest.raises(kind) as raised:
        torch_backend(BackendConfig(model=str(directory), **config), BackendContext())
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_drafts_of_a_model_with_states_are_refused_before_it_loads(tmp_path: Path) -> None:
    save("lfm2", echo_model(tmp_path))
    speculation = Speculation(method="ngram", num_speculative_tokens=4)
    message = refusal(tmp_path, ConfigError, speculative_config=speculation)
    assert message.startswith("--speculative-config: Lfm2ForCausalLM keeps a state for each sequence")


def config_json(directory: Path, text: str) -> Path:
    (echo_model(directory) / "config.json").write_text(text)
    return directory


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"architectures": ["NewForCausalLM"]}', "has no model_type"),
        ('{"architectures": ["NewForCausalLM"], "model_type": "new"}', "has no model type 'new'"),
        (
            '{"model_type": "new", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}',
            "code from a model directory is never run",
        ),
        (
            '{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": 1000000000}',
            "n_layer is 1000000000",
        ),
        ('{"architectures": ["OPTForCausalLM"], "model_type": "opt", "hidden_size": "x"}', "hidden_size"),
    ],
)
def test_configurations_that_transformers_cannot_serve_are_refused_in_one_line(
    config: str, message: str, tmp_path: Path
) -> None:
    assert message in refusal(config_json(tmp_path, config), load_format="dummy")


def test_a_class_is_found_by_its_model_type_alone(tmp_path: Path) -> None:
    model = build("opt")
    model.config.architectures = None
    model.config.save_pretrained(echo_model(tmp_path))
    _, _, card = asyncio.run(generate_all(tmp_path, PROMPTS[:1], 1, load_format="dummy"))
    assert card.runtime["architecture"] == "OPTForCausalLM"


def test_native_alone_refuses_what_only_transformers_has(tmp_path: Path) -> None:
    save("opt", echo_model(tmp_path))
    assert "does not support OPTForCausalLM" in refusal(tmp_path, model_impl="native")


def test_what_transformers_does_not_know_is_named(tmp_path: Path) -> None:
    save("phi", echo_model(tmp_path))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "nope"}))
    with pytest.raises(ModelError, match=r"^transformers can't load PhiForCausalLM: it has no 'nope'$"):
        asyncio.run(generate_all(tmp_path, PROMPTS[:1], 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.pop("model.layers.1.mlp.fc1.weight"),
            "the weights lack 'model.layers.1.mlp.fc1",
        ),
        (
            lambda tensors: tensors.update({"model.layers.1.mlp.fc1.weight": torch.zeros(3, 4)}),
            "has the shape",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save("phi", echo_model(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=message) as raised:
        asyncio.run(generate_all(tmp_path, PROMPTS[:1], 1))
    assert "\n" not in str(raised.value)
