"""LoRA adapters against PEFT's merged weights, through the scheduler and its prefix cache."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.api_fakes import byte_tokenizer
from support.lora_adapters import save_adapter
from support.tiny_models import save_model

from fllm.batching.backend import BatchedBackend
from fllm.batching.runner import Row
from fllm.config import BackendConfig, LoraAdapter, Speculation
from fllm.errors import ConfigError, ModelError, ModelNotFound, UserError
from fllm.interfaces import BackendContext
from fllm.plugins.loader import load_plugins
from fllm.values import EngineOutput, GenerateRequest, ModelCard, SamplingParams
from fllm_backends.checkpoints.architecture import read_architecture
from fllm_backends.torch.backend import torch_backend
from fllm_backends.torch.fused.decoder import is_supported
from fllm_backends.torch.fused.kernel_threads import KernelThreads
from fllm_backends.torch.fused.linear import PackedProduct
from fllm_backends.torch.fused.packed_lm import PackedMatrixLinear
from fllm_backends.torch.lora.adapters import LoraAdapters, LoraPart
from fllm_backends.torch.lora.attach import LoraLinear

PROMPTS = [[5, 17, 40, 8, 22, 91, 3], [60, 61, 62], [9, 33, 71, 12, 5, 5, 8, 44, 80, 2, 19]]
LONG = [(7 * i * i + 3 * i) % 90 + 2 for i in range(50)]
TOLERANCE = 1e-4
GEMMA: dict[str, Any] = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2", GEMMA),
    "starcoder2": ("Starcoder2", {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
    "phi3": ("Phi3", {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
}
FUSED: dict[str, dict[str, Any]] = {
    "Llama": {"hidden_size": 64, "intermediate_size": 90, "num_attention_heads": 2, "num_key_value_heads": 1},
    "Gemma2": GEMMA | {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "num_hidden_layers": 2},
}
"""Sizes that the fused layers support."""
CONFIGS: list[dict[str, Any]] = [
    {},
    {"r": 8, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
    {
        "target_modules": r".*\.(o_proj|down_proj|gate_proj)",
        "rank_pattern": {"down_proj": 2, r"layers\.0\.mlp\.gate_proj": 3},
        "alpha_pattern": {"layers.1.self_attn.o_proj": 32},
    },
]
PHI_CONFIGS: list[dict[str, Any]] = [
    {"target_modules": "all-linear"},
    {"target_modules": ["qkv_proj", "gate_up_proj"]},
    {"target_modules": ["down_proj"], "r": 1},
]


class Checkpoints:
    """A model in a directory, three adapters, and transformers' models: the base and each merged one."""

    def __init__(self, root: Path, family: str = "llama") -> None:
        self.directory = root / "model"
        name, changes = (family, FUSED[family]) if family in FUSED else FAMILIES[family]
        base = save_model(name, self.directory, **changes)
        byte_tokenizer()._inner.save(str(self.directory / "tokenizer.json"))
        self.models = [base]
        self.adapters: list[LoraAdapter] = []
        for number, config in enumerate(PHI_CONFIGS if family == "phi3" else CONFIGS, 1):
            path = root / f"adapter{number}"
            self.models.append(save_adapter(base, path, seed=number, **config))
            self.adapters.append(LoraAdapter(id=number, name=f"adapter{number}", path=str(path)))

    @torch.inference_mode()
    def expected(self, adapter: int, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
        """Return the greedy tokens after a prompt and their log-probabilities."""
        ids, logprobs = list(prompt), []
        for _ in range(count):
            logits = self.models[adapter](torch.tensor([ids])).logits[0, -1]
            ids.append(int(logits.argmax()))
            logprobs.append(float(logits.log_softmax(-1)[ids[-1]]))
        return ids[len(prompt) :], logprobs


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return Checkpoints(tmp_path_factory.mktemp("lora"))


class Engine:
    """A started backend."""

    def __init__(self, checkpoints: Checkpoints, **config: Any) -> None:
        settings: dict[str, Any] = {
            "model": str(checkpoints.directory),
            "quantization": "none",
            "enable_lora": True,
            "lora_modules": tuple(checkpoints.adapters),
        }
        context = BackendContext(load_drafter=load_plugins().drafters.load)
        backend = torch_backend(BackendConfig(**(settings | config)), context)
        assert isinstance(backend, BatchedBackend)
        self.backend = backend
        self.checkpoints = checkpoints
        self.card: ModelCard | None = None
        self._count = 0

    def request(self, adapter: int, prompt: list[int], count: int = 8, **fields: Any) -> GenerateRequest:
        self._count += 1
        sampling = SamplingParams(max_tokens=count, temperature=0, logprobs=0, ignore_eos=True)
        return GenerateRequest(f"r{self._count}", prompt, sampling, adapter=adapter, **fields)

    async def generate(self, request: GenerateRequest) -> EngineOutput:
        """Return all outputs of a request as one."""
        ids, logprobs, cached = [], [], 0
        async with aclosing(self.backend.generate(request)) as outputs:
            async for output in outputs:
                ids += output.token_ids
                logprobs += output.logprobs or []
                cached += output.cached_tokens
        return EngineOutput(token_ids=ids, logprobs=logprobs, cached_tokens=cached)

    async def check(self, adapter: int, prompt: list[int], **fields: Any) -> int:
        """Generate and compare with the merged model; return the number of cached tokens."""
        output = await self.generate(self.request(adapter, prompt, **fields))
        ids, logprobs = self.checkpoints.expected(adapter, prompt, len(output.token_ids))
        assert output.token_ids == ids
        assert [each.logprob for each in output.logprobs or ()] == pytest.approx(logprobs, abs=TOLERANCE)
        return output.cached_tokens


def run(engine: Engine, use: Callable[[Engine], Awaitable[None]]) -> None:
    async def go() -> None:
        engine.card = await engine.backend.start()
        try:
            await use(engine)
        finally:
            await engine.backend.stop()

    asyncio.run(go())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_all_adapters_and_none_equals_the_merged_models(family: str, tmp_path: Path) -> None:
    async def use(engine: Engine) -> None:
        await asyncio.gather(*(engine.check(adapter, p) for p in PROMPTS for adapter in range(4)))

    checkpoints = Checkpoints(tmp_path, family)
    results = [checkpoints.expected(adapter, PROMPTS[0], 8)[1] for adapter in range(4)]
    assert len({tuple(each) for each in results}) == 4
    run(Engine(checkpoints), use)


def test_a_long_prompt_in_chunks_beside_others(checkpoints: Checkpoints) -> None:
    async def use(engine: Engine) -> None:
        await asyncio.gather(*(engine.check(adapter, LONG) for adapter in range(4)))

    run(Engine(checkpoints, max_num_batched_tokens=7, max_num_seqs=3), use)


def test_adapters_do_not_share_blocks_of_the_prefix_cache(checkpoints: Checkpoints) -> None:
    async def use(engine: Engine) -> None:
        for adapter in range(4):
            assert await engine.check(adapter, LONG) == 0
        for adapter in range(4):
            assert await engine.check(adapter, LONG, cache_salt="") == 48
        assert await engine.check(1, LONG, shared_tokens=32, cache_salt="other") == 32
        assert await engine.check(2, [*LONG[:32], 9], shared_tokens=32, cache_salt="third") == 32

    run(Engine(checkpoints), use)


def test_drafts_are_verified_with_the_adapter(checkpoints: Checkpoints) -> None:
    async def use(engine: Engine) -> None:
        for adapter in range(4):
            await engine.check(adapter, [4, 5, 6, 7, 8] * 4, count=20)
        assert (await engine.backend.status()).drafted > 0

    speculation = Speculation(method="ngram", num_speculative_tokens=4, settings={"prompt_lookup_min": 1})
    run(Engine(checkpoints, speculative_config=speculation), use)


def test_prompt_logprobs_are_those_of_the_adapter(checkpoints: Checkpoints) -> None:
    async def use(engine: Engine) -> None:
        for adapter in (0, 3):
            sampling = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
            request = GenerateRequest(f"p{adapter}", PROMPTS[2], sampling, adapter=adapter)
            async with aclosing(engine.backend.generate(request)) as outputs:
                first = await anext(outputs)
            logits = checkpoints.models[adapter](torch.tensor([PROMPTS[2]])).logits[0].detach()
            expected = logits.log_softmax(-1)[range(10), PROMPTS[2][1:]].tolist()
            assert first.prompt_logprobs
            got = [each.logprob for each in first.prompt_logprobs if each]
            assert got == pytest.approx(expected, abs=TOLERANCE)

    run(Engine(checkpoints), use)


def test_an_adapter_is_loaded_and_unloaded_while_others_generate(checkpoints: Checkpoints) -> None:
    async def use(engine: Engine) -> None:
        backend, (first, second, _) = engine.backend, checkpoints.adapters
        with pytest.raises(ModelNotFound):
            await engine.check(1, LONG)
        traffic = [asyncio.create_task(engine.check(0, LONG, count=40)) for _ in range(3)]
        await backend.load_adapter(first)
        assert await engine.check(1, LONG) == 0
        held = aclosing(backend.generate(engine.request(1, LONG, 30)))
        async with held as outputs:
            ids = list((await anext(outputs)).token_ids)
            await backend.unload_adapter(1)
            with pytest.raises(ModelNotFound):
                await engine.check(1, LONG)
            with pytest.raises(ModelNotFound):
                await backend.unload_adapter(1)
            async for output in outputs:  # with the adapter, although it is closed to others
                ids += output.token_ids
        assert ids == checkpoints.expected(1, LONG, 30)[0]
        renamed = LoraAdapter(id=2, name=first.name, path=second.path)
        await backend.load_adapter(renamed)
        assert await engine.check(2, LONG) == 0
        await asyncio.gather(*traffic)

    run(Engine(checkpoints, lora_modules=()), use)


def test_no_more_adapters_than_allowed_are_loaded(checkpoints: Checkpoints) -> None:
    async def use(engine: Engine) -> None:
        third = checkpoints.adapters[2]
        with pytest.raises(ConfigError, match="2 adapters are loaded"):
            await engine.backend.load_adapter(third)
        await engine.backend.unload_adapter(1)
        await engine.backend.load_adapter(third)
        await engine.check(3, LONG)

    run(Engine(checkpoints, lora_modules=tuple(checkpoints.adapters[:2]), max_cpu_loras=2), use)


def test_an_adapter_that_fails_to_load_takes_no_place(checkpoints: Checkpoints, tmp_path: Path) -> None:
    async def use(engine: Engine) -> None:
        for _ in range(2):
            with pytest.raises(UserError, match="is not a directory with a LoRA adapter"):
                await engine.backend.load_adapter(LoraAdapter(id=9, name="x", path=str(tmp_path / "none")))
        await engine.backend.load_adapter(checkpoints.adapters[0])
        await engine.check(1, LONG)

    run(Engine(checkpoints, lora_modules=(), max_cpu_loras=1), use)


def test_packed_weights_with_adapters_are_near_the_merged_models(checkpoints: Checkpoints) -> None:
    async def use(engine: Engine) -> None:
        assert engine.card
        assert engine.card.runtime["quantization"] == "int8"
        for adapter in range(4):
            output = await engine.generate(engine.request(adapter, PROMPTS[0], 1))
            [(token, [logprob])] = [(output.token_ids[0], output.logprobs or [])]
            logits = checkpoints.models[adapter](torch.tensor([PROMPTS[0]])).logits[0, -1].detach()
            assert logprob.logprob == pytest.approx(float(logits.log_softmax(-1)[token]), abs=0.15)

    engine = Engine(checkpoints, quantization=None)
    run(engine, use)


@pytest.mark.parametrize("family", FUSED)
def test_fused_layers_with_adapters_are_near_the_merged_models(family: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, family)
    assert is_supported(read_architecture(checkpoints.directory))

    async def use(engine: Engine) -> None:
        alone = [await engine.generate(engine.request(adapter, PROMPTS[0], 3)) for adapter in range(4)]
        for adapter, output in enumerate(alone):
            logits = checkpoints.models[adapter](torch.tensor([PROMPTS[0]])).logits[0, -1].detach()
            assert output.logprobs
            got = output.logprobs[0].logprob
            assert got == pytest.approx(float(logits.log_softmax(-1)[output.token_ids[0]]), abs=0.15)
        assert len({output.logprobs[0].logprob for output in alone if output.logprobs}) == 4
        requests = [engine.request(adapter, PROMPTS[0], 3, cache_salt=str(adapter)) for adapter in range(4)]
        together = await asyncio.gather(*map(engine.generate, requests))
        assert [each.logprobs for each in together] == [each.logprobs for each in alone]
        await engine.backend.unload_adapter(1)
        again = engine.request(2, PROMPTS[0], 3, cache_salt="again")
        assert (await engine.generate(again)).logprobs == alone[2].logprobs

    run(Engine(checkpoints, quantization=None), use)


def test_what_an_adapter_adds_to_a_packed_matrix_is_exact() -> None:
    torch.manual_seed(0)
    weight, a, b = torch.randn(48, 32), torch.randn(4, 32), torch.randn(16, 4)
    inner = PackedMatrixLinear(torch.empty(0), product=PackedProduct(weight, None, KernelThreads(1)))
    adapters = LoraAdapters({}, torch.device("cpu"))
    adapters.add(5, {(0, "qkv"): [LoraPart(a, b, 32)]})
    linear, x = LoraLinear(inner.weight, None, inner, (0, "qkv"), adapters), torch.randn(3, 32)
    adapters.select([row(0), row(5), row(0)])
    expected = inner(x)
    expected[1, 32:] += b @ (a @ x[1])
    assert torch.allclose(linear(x), expected, atol=1e-5)
    adapters.select([row(0)])
    assert torch.equal(linear(x), inner(x))


def row(adapter: int) -> Row:
    return Row(
        token_ids=[0],
        prompt_length=1,
        start=0,
        count=1,
        block_table=[0],
        sampling=SamplingParams(max_tokens=1),
        seed=0,
        sample=True,
        adapter=adapter,
    )


def change_config(directory: Path, **changes: Any) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_tensors(directory: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = directory / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


DOWN = "base_model.model.model.layers.0.mlp.down_proj.lora_"
INVALID: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no config": ("adapter_config.json can't be read", lambda d: (d / "adapter_config.json").unlink()),
    "no tensors": (
        "adapter_model.safetensors can't be read",
        lambda d: (d / "adapter_model.safetensors").unlink(),
    ),
    "pickle": (
        r"holds pickled weights \(.bin\), which are never loaded",
        lambda d: (d / "adapter_model.safetensors").rename(d / "adapter_model.bin"),
    ),
    "another method": ("type 'LOHA'; only LORA", lambda d: change_config(d, peft_type="LOHA")),
    "dora": ("'use_dora', which is not supported", lambda d: change_config(d, use_dora=True)),
    "whole modules": ("'modules_to_save'", lambda d: change_config(d, modules_to_save=["lm_head"])),
    "biases": (r"trained biases \(bias 'all'\)", lambda d: change_config(d, bias="all")),
    "experts": ("'target_parameters'", lambda d: change_config(d, target_parameters=["mlp.experts"])),
    "pissa": ("init_lora_weights 'pissa'", lambda d: change_config(d, init_lora_weights="pissa")),
    "no rank": ("Expected `int` >= 1", lambda d: change_config(d, r=0)),
    "another rank": ("says that their rank is 5", lambda d: change_config(d, r=5)),
    "a slow pattern": ("is too complex", lambda d: change_config(d, rank_pattern={"(a+)+b": 4})),
    "a broken pattern": ("is invalid", lambda d: change_config(d, alpha_pattern={"(": 4})),
    "half a module": (
        "lacks lora_B of 'model.layers.0.mlp.down_proj'",
        lambda d: change_tensors(d, lambda t: {k: v for k, v in t.items() if k != DOWN + "B.weight"}),
    ),
    "another tensor": (
        "holds 'lm_head.weight', which is not a LoRA matrix",
        lambda d: change_tensors(d, lambda t: t | {"lm_head.weight": torch.zeros(2, 2)}),
    ),
    "integers": (
        "are of type I8",
        lambda d: change_tensors(d, lambda t: t | {DOWN + "A.weight": t[DOWN + "A.weight"].to(torch.int8)}),
    ),
    "infinite numbers": ("hold numbers that are not finite", lambda d: change_config(d, lora_alpha=1e400)),
    "another shape": (
        "adapts 'model.layers.0.mlp.down_proj' as a matrix of 32 x 50; in this model it has 32 x 48",
        lambda d: change_tensors(d, lambda t: t | {DOWN + "A.weight": torch.zeros(4, 50)}),
    ),
    "another model": (
        "adapts 'model.layers.7.mlp.down_proj'; this model has no such linear layer",
        lambda d: change_tensors(d, lambda t: {k.replace("layers.2", "layers.7"): v for k, v in t.items()}),
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_adapter_is_refused_in_one_line(
    case: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    message, damage = INVALID[case]
    for file in Path(checkpoints.adapters[0].path).iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path)

    async def use(engine: Engine) -> None:
        with pytest.raises(ModelError, match=message) as caught:
            await engine.backend.load_adapter(LoraAdapter(id=1, name="bad", path=str(tmp_path)))
        assert "\n" not in caught.value.message
        await engine.check(0, PROMPTS[1])

    run(Engine(checkpoints, lora_modules=()), use)


def test_a_larger_rank_than_allowed_is_refused_before_the_model_is_loaded(checkpoints: Checkpoints) -> None:
    with pytest.raises(ModelError, match="--max-lora-rank is 3"):
        Engine(checkpoints, max_lora_rank=3)
    with pytest.raises(ModelError, match="is not a directory with a LoRA adapter"):
        Engine(checkpoints, lora_modules=(LoraAdapter(id=1, name="a", path="/nowhere"),))
