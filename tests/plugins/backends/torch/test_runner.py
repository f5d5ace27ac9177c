from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from support.tiny_models import save_model

from fllm.batching.runner import Row
from fllm.config import BackendConfig, Device
from fllm.errors import ConfigError, ModelError
from fllm.values import ModelCard, Progress, SamplingParams
from fllm_backends.torch.options import read_torch_config
from fllm_backends.torch.runner import TorchRunner

BLOCK_SIZE = 4


def runner_of(directory: Path, max_num_seqs: int = 4, **config: Any) -> TorchRunner:
    options = read_torch_config(BackendConfig(model=str(directory), **config))
    return TorchRunner(options, options.device or Device("cpu"), max_num_seqs)


def load(runner: TorchRunner) -> ModelCard:
    return runner.load(lambda progress: None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("tiny")
    save_model("Llama", directory)
    return directory


@pytest.fixture(scope="module")
def runner(tiny: Path) -> TorchRunner:
    runner = runner_of(tiny, max_num_seqs=32)
    load(runner)
    runner.allocate(BLOCK_SIZE)
    return runner


class Sequence:
    """One sequence in blocks of its own; ``row`` continues it."""

    def __init__(self, index: int, prompt: list[int], *, seed: int = 0, **sampling: Any) -> None:
        self.ids = list(prompt)
        self._prompt_length = len(prompt)
        self._table = list(range(20 * index, 20 * index + 20))
        self._seed = seed
        self._sampling = SamplingParams(**{"max_tokens": 100, **sampling})
        self._done = 0

    def row(self, count: int | None = None) -> Row:
        start, left = self._done, len(self.ids) - self._done
        count = count or left
        self._done += count
        return Row(
            token_ids=self.ids, prompt_length=self._prompt_length, start=start, count=count,
            block_table=self._table, sampling=self._sampling, seed=self._seed, sample=count == left,
            prompt_logprobs=self._sampling.prompt_logprobs is not None and start < self._prompt_length,
        )  # fmt: skip


def test_the_card_says_what_the_directory_says(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    generation = {"eos_token_id": [7, 8], "temperature": 0.6, "top_k": 20, "max_new_tokens": 64}
    (tmp_path / "generation_config.json").write_bytes(msgspec.json.encode(generation))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<end>"}}')
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": [{"id": 9, "content": "<end>"}]}')
    card = load(runner_of(tmp_path))
    assert card.tokenizer == str(tmp_path)
    assert card.max_model_len == 128
    assert card.eos_token_ids == (7, 8, 2, 9)  # 2 is in config.json
    assert (card.defaults.temperature, card.defaults.top_k, card.defaults.max_tokens) == (0.6, 20, 64)
    assert card.defaults.top_p is None
    assert card.runtime["device"] == "cpu"
    assert card.runtime["dtype"] == "float32"
    assert (card.runtime["architecture"], card.runtime["vocab_size"]) == ("LlamaForCausalLM", 96)


def test_recommendations_of_a_greedy_model_are_no_defaults(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.1}')
    assert load(runner_of(tmp_path)).defaults.temperature is None


def test_the_artifact_is_named_by_its_weights(tiny: Path, tmp_path: Path) -> None:
    save_model("Llama", tmp_path, initializer_range=0.3)
    assert load(runner_of(tiny)).artifact_id == load(runner_of(tiny)).artifact_id
    assert load(runner_of(tiny)).artifact_id != load(runner_of(tmp_path)).artifact_id


def test_progress_goes_from_nothing_to_all(tiny: Path) -> None:
    steps: list[Progress] = []
    runner_of(tiny).load(steps.append)
    assert [(step.done, step.total) for step in steps] == [(done, 3) for done in range(4)]


def test_blocks_fill_the_memory_that_was_given(tiny: Path) -> None:
    runner = runner_of(tiny, options={"kv_cache_memory": "100KiB"})
    load(runner)
    token = 2 * 3 * 2 * 8 * 4  # keys and values, layers, kv heads, head_dim, float32
    assert runner.allocate(BLOCK_SIZE) == 100 * 1024 // (token * BLOCK_SIZE)


@pytest.mark.parametrize(
    ("config", "blocks"),
    [
        ({"options": {"kv_cache_memory": "1GiB"}}, 9 * 32),
        ({"options": {"kv_cache_memory": "1GiB"}, "max_model_len": 30}, 9 * 8),
        ({}, 9 * 32),  # 128 tokens are less than what a sequence usually has
    ],
)
def test_blocks_are_no_more_than_all_sequences_can_fill(
    tiny: Path, config: dict[str, Any], blocks: int
) -> None:
    runner = runner_of(tiny, max_num_seqs=9, **config)
    load(runner)
    assert runner.allocate(BLOCK_SIZE) == blocks


def test_a_cpus_memory_is_taken_for_three_full_sequences_and_all_of_usual_length(tmp_path: Path) -> None:
    save_model("Llama", tmp_path, max_position_embeddings=4096)
    for seqs, tokens in ((3, 3 * 4096), (64, 64 * 384)):
        runner = runner_of(tmp_path, max_num_seqs=seqs)
        load(runner)
        assert runner.allocate(BLOCK_SIZE) == tokens // BLOCK_SIZE


def test_a_context_beyond_the_models_own_is_refused_before_any_weight_is_read(tiny: Path) -> None:
    steps: list[Progress] = []
    with pytest.raises(ConfigError, match="--max-model-len is 129 and the model's own is 128"):
        runner_of(tiny, max_model_len=129).load(steps.append)
    assert steps == []


def test_a_device_that_is_not_there_is_refused(tiny: Path) -> None:
    with pytest.raises(ConfigError, match="cuda:99"):
        load(runner_of(tiny, devices=(Device("cuda", 99),)))


def test_dummy_weights_need_no_files_and_follow_the_seed(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    texts = []
    for seed in (1, 1, 2):
        runner = runner_of(tmp_path, load_format="dummy", seed=seed, dtype="bfloat16")
        assert load(runner).runtime["dtype"] == "bfloat16"
        runner.allocate(BLOCK_SIZE)
        sequence = Sequence(0, [1, 2, 3], logprobs=0)
        [result] = runner.execute([sequence.row()])
        texts.append(result.logprob)
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_dtypes_say_about_the_same(dtype: str, tiny: Path, runner: TorchRunner) -> None:
    narrow = runner_of(tiny, dtype=dtype)
    load(narrow)
    narrow.allocate(BLOCK_SIZE)
    [expected] = runner.execute([Sequence(0, [1, 2, 3], temperature=0, logprobs=0).row()])
    [found] = narrow.execute([Sequence(0, [1, 2, 3], temperature=0, logprobs=0).row()])
    assert expected.logprob
    assert found.logprob
    assert found.logprob.logprob == pytest.approx(expected.logprob.logprob, abs=0.2)


def test_a_cache_beyond_all_memory_is_refused(tiny: Path) -> None:
    runner = runner_of(tiny, max_num_seqs=10**15, options={"kv_cache_memory": "9000000GiB"})
    load(runner)
    with pytest.raises(ConfigError, match="do not fit into memory"):
        runner.allocate(BLOCK_SIZE)


# What goes wrong with a directory.


def change(path: Path, **changes: Any) -> None:
    content = msgspec.json.decode(path.read_bytes()) | changes
    path.write_bytes(msgspec.json.encode(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 4}, r"lack 'model\.layers\.3\.input_layernorm\.weight'"),
        ({"intermediate_size": 47}, r"shape \[48, 32\]; config\.json requires \[47, 32\]"),
        ({"attention_bias": True}, r"lack 'model\.layers\.0\.self_attn\.q_proj\.bias'"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save_model("Llama", tmp_path)
    change(tmp_path / "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        load(runner_of(tmp_path))


def test_a_directory_without_weights_and_one_with_pickled_ones_are_refused(tmp_path: Path) -> None:
    save_model("Llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        load(runner_of(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickled weights"):
        load(runner_of(tmp_path))


@pytest.mark.parametrize("content", [b"", b"{", b"\x10\0\0\0\0\0\0\0{not a header at"])
def test_broken_weights_are_refused(content: bytes, tmp_path: Path) -> None:
    save_model("Llama", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors can't be read"):
        load(runner_of(tmp_path))


@pytest.mark.parametrize("content", [b"", b"[]", b"{"])
def test_a_broken_configuration_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        load(runner_of(tmp_path, load_format="dummy"))


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    model = save_model("Llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    load(runner_of(tmp_path))
    shards[0].unlink()
    with pytest.raises(ModelError, match=f"{shards[0].name} can't be read"):
        load(runner_of(tmp_path))


def test_a_broken_index_is_refused(tmp_path: Path) -> None:
    save_model("Llama", tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": ["model.safetensors"]}')
    with pytest.raises(ModelError, match=r"index\.json is invalid.*weight_map"):
        load(runner_of(tmp_path))


# What it says.


def expected_logprobs(directory: Path, ids: list[int]) -> torch.Tensor:
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(directory)
    with torch.inference_mode():
        logprobs: torch.Tensor = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return logprobs


def test_logprobs_are_the_models_own_whatever_is_sampled(runner: TorchRunner, tiny: Path) -> None:
    ids = [4, 8, 15, 16, 23, 42]
    wanted = expected_logprobs(tiny, ids)[-1]
    plain = Sequence(0, ids)
    asking = Sequence(1, ids, seed=5, logprobs=3, temperature=0.3, top_k=2, frequency_penalty=1.0)
    many = Sequence(2, ids, logprobs=20, logit_bias={7: 100.0})
    none, some, all_ = runner.execute([plain.row(), asking.row(), many.row()])
    assert none.logprob is None
    assert some.logprob
    assert all_.logprob
    assert (some.logprob.token_id, all_.logprob.token_id) == (some.token_id, 7)
    for result, count in ((some.logprob, 3), (all_.logprob, 20)):
        best = wanted.topk(count)
        assert [token for token, _ in result.top] == best.indices.tolist()
        assert [value for _, value in result.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert result.logprob == pytest.approx(wanted[result.token_id].item(), abs=1e-4)


def test_prompt_logprobs_come_chunk_by_chunk(runner: TorchRunner, tiny: Path) -> None:
    ids = [4, 8, 15, 16, 23, 42, 7]
    wanted = expected_logprobs(tiny, ids)
    sequence = Sequence(0, ids, prompt_logprobs=2)
    chunks = [runner.execute([sequence.row(count)])[0].prompt_logprobs for count in (3, 1, 3)]
    assert [len(chunk) for chunk in chunks] == [3, 1, 2]
    for place, found in enumerate(itertools.chain(*chunks), start=1):
        assert found.token_id == ids[place]
        assert found.logprob == pytest.approx(wanted[place - 1, ids[place]].item(), abs=1e-4)
        assert [token for token, _ in found.top] == wanted[place - 1].topk(2).indices.tolist()
        assert found.rank == wanted[place - 1].argsort(descending=True).tolist().index(ids[place]) + 1


def test_closing_drops_the_model_and_may_come_before_loading(tiny: Path) -> None:
    runner = runner_of(tiny)
    runner.close()
    load(runner)
    runner.allocate(BLOCK_SIZE)
    runner.close()
    assert not hasattr(runner, "_model")
