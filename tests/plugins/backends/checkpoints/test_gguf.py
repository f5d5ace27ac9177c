from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from support.tiny_models import TINY, save_model, write_gguf
from tokenizers import Tokenizer

from fllm.errors import ConfigError, ModelError
from fllm.model.source import locate
from fllm.values import Progress
from fllm_backends.checkpoints.download import fingerprint
from fllm_backends.checkpoints.gguf import convert as conversion
from fllm_backends.checkpoints.gguf.convert import convert, convert_once
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.tokenizer import tokenizer
from fllm_backends.torch.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def silent(progress: Progress) -> None:
    pass


def tiny_gguf(tmp_path: Path, family: str = "Llama", architecture: str = "llama", **changes: Any) -> Path:
    model = save_model(family, tmp_path / "original", **{"hidden_size": 64, "head_dim": 16, **changes})
    return write_gguf(tmp_path / "tiny.gguf", model, architecture)


@pytest.mark.parametrize(
    ("family", "architecture", "changes"),
    [
        ("Llama", "llama", {}),
        ("Llama", "llama", {"tie_word_embeddings": True}),
        ("Qwen2", "qwen2", {}),
        ("Qwen3", "qwen3", {}),
    ],
)
def test_a_conversion_gives_back_the_weights_and_the_configuration(
    family: str, architecture: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    path = tiny_gguf(tmp_path, family, architecture, **changes)
    directory = convert_once(path, "print", "float32", silent)
    before, after = Checkpoint(tmp_path / "original"), Checkpoint(directory)
    for name in sorted(before):
        wanted = before.read(name)
        assert torch.equal(after.tensor(name, *wanted.shape), wanted), name
    old = msgspec.json.decode((tmp_path / "original" / "config.json").read_bytes())
    new = msgspec.json.decode((directory / "config.json").read_bytes())
    for key in ("architectures", *TINY.keys() - {"initializer_range"}, "tie_word_embeddings"):
        assert new[key] == old[key], key


@pytest.mark.parametrize("quantization", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantized_weights_come_back_close(quantization: str, tmp_path: Path) -> None:
    model = save_model("Llama", tmp_path / "original", hidden_size=64, intermediate_size=64, head_dim=16)
    path = write_gguf(tmp_path / "tiny.gguf", model, quantization=quantization)
    after = Checkpoint(convert_once(path, "print", "float32", silent))
    for name in ("model.layers.1.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight"):
        wanted = model.get_parameter(name)
        error = (after.tensor(name, *wanted.shape) - wanted).abs().max() / wanted.abs().max()
        assert 0 < error < 0.16, (name, error)


def test_llama_3s_rope_divisors_become_part_of_the_configuration(tmp_path: Path) -> None:
    model = save_model("Llama", tmp_path / "original")
    divisors = np.array([1, 2, 4, 8], dtype=np.float32)
    path = write_gguf(tmp_path / "tiny.gguf", model, tensors={"rope_freqs.weight": divisors})
    rope = msgspec.json.decode((convert_once(path, "p", "float32", silent) / "config.json").read_bytes())
    assert rope["rope_parameters"]["rope_type"] == "longrope"
    assert rope["rope_parameters"]["long_factor"] == [1, 2, 4, 8]


def test_the_dtype_is_that_of_the_device(tmp_path: Path) -> None:
    directory = convert_once(tiny_gguf(tmp_path), "print", "bfloat16", silent)
    assert Checkpoint(directory).read("model.norm.weight").dtype == torch.bfloat16


def test_a_second_start_finds_the_result_and_does_not_read_the_file(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path)
    first = convert_once(path, "print", "float32", silent)
    path.write_bytes(b"GGUF, and nothing more")
    assert convert_once(path, "print", "float32", silent) == first


def test_another_file_dtype_or_layout_has_a_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_gguf(tmp_path)
    places = [convert_once(path, "one", "float32", silent), convert_once(path, "two", "float32", silent)]
    places.append(convert_once(path, "one", "bfloat16", silent))
    monkeypatch.setattr(conversion, "FORMAT_VERSION", conversion.FORMAT_VERSION + 1)
    places.append(convert_once(path, "one", "float32", silent))
    assert len(set(places)) == 4


def test_two_that_convert_at_once_agree_and_leave_nothing_behind(tmp_path: Path, cache: Path) -> None:
    path = tiny_gguf(tmp_path)
    both_are_writing = threading.Barrier(2)

    def wait_for_both(progress: Progress) -> None:
        if progress.done == progress.total:
            both_are_writing.wait(timeout=30)

    found: list[Path] = []
    run = [
        threading.Thread(target=lambda: found.append(convert_once(path, "p", "float32", wait_for_both)))
        for _ in range(2)
    ]
    for thread in run:
        thread.start()
    for thread in run:
        thread.join()
    assert found[0] == found[1]
    assert [entry.name for entry in (cache / "gguf").iterdir()] == [found[0].name]
    assert (found[0] / "tokenizer.json").is_file()


def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    path = tiny_gguf(tmp_path)

    def fail(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_once(path, "print", "float32", fail)
    assert list((cache / "gguf").iterdir()) == []


def test_a_cache_that_can_not_be_written_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set FLLM_CACHE to another directory"):
        convert_once(tiny_gguf(tmp_path), "print", "float32", silent)


def test_progress_counts_the_tensors(tmp_path: Path) -> None:
    steps: list[Progress] = []
    convert_once(tiny_gguf(tmp_path), "print", "float32", steps.append)
    assert [step.done for step in steps] == list(range(steps[0].total + 1))
    assert {step.total for step in steps} == {3 + 9 * TINY["num_hidden_layers"]}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({"tokenizer.ggml.pre": "martian"}, "'martian'.* is not supported; supported: gpt-2"),
        ({"tokenizer.ggml.model": "runes"}, "kind 'runes' is not supported; supported: gpt2, llama"),
    ],
)
def test_what_is_not_known_is_refused_by_name(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = save_model("Llama", tmp_path / "original")
    with pytest.raises(ModelError, match=message):
        convert(write_gguf(tmp_path / "tiny.gguf", model, keys=keys), tmp_path, "float32", silent)


def test_an_unknown_architecture_and_a_truncated_file_are_refused(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"llama", b"lemma"))
    with pytest.raises(ModelError, match="'lemma' is not supported; supported: llama, qwen2, qwen3, smollm3"):
        convert(path, tmp_path, "float32", silent)
    path.write_bytes(whole[:200])
    with pytest.raises(ModelError, match="can't be read as GGUF"):
        convert(path, tmp_path, "float32", silent)


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"token_embd", b"token_embe"))
    with pytest.raises(ModelError, match="no weights"):
        convert(path, tmp_path, "float32", silent)


def test_a_foreign_tensor_is_refused(tmp_path: Path) -> None:
    model = save_model("Llama", tmp_path / "original")
    extra = {"blk.0.ffn_sub_norm.weight": np.ones(4, dtype=np.float32)}
    with pytest.raises(ModelError, match="ffn_sub_norm"):
        convert(write_gguf(tmp_path / "tiny.gguf", model, tensors=extra), tmp_path, "float32", silent)


def test_the_end_tokens_and_the_template_come_along(tmp_path: Path) -> None:
    directory = convert_once(tiny_gguf(tmp_path), "print", "float32", silent)
    generation = msgspec.json.decode((directory / "generation_config.json").read_bytes())
    assert generation == {"bos_token_id": 94, "eos_token_id": [95]}
    named = msgspec.json.decode((directory / "tokenizer_config.json").read_bytes())
    assert (named["bos_token"], named["eos_token"]) == ("<s>", "<|im_end|>")
    assert named["chat_template"] == "{{ messages[0]['content'] }}"


def test_a_fingerprint_depends_on_the_bytes_and_not_on_the_path(tmp_path: Path) -> None:
    large = bytes(range(256)) * 4096
    for name, content in {"a": large, "b": large, "c": large[:-1] + b"x", "d": large[:-1]}.items():
        (tmp_path / name).write_bytes(content)
    prints = [fingerprint([tmp_path / name]) for name in "abcd"]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


# Tokenizers.


class Keys(Metadata):
    """Metadata without a file."""

    def __init__(self, **keys: Any) -> None:
        self.architecture = "llama"
        self._keys = {f"tokenizer.ggml.{name}": value for name, value in keys.items()}

    def get(self, key: str, default: Any = None) -> Any:
        return self._keys.get(key, default)


def byte_level(pre: str, *pieces: str, **keys: Any) -> Tokenizer:
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merges = []
    for piece in pieces:
        merges += [f"{piece[:at]} {piece[at]}" for at in range(1, len(piece))]
    tokens = [*letters, *dict.fromkeys(merge.replace(" ", "") for merge in merges)]
    types = [1] * len(tokens)
    return tokenizer(Keys(model="gpt2", pre=pre, tokens=tokens, merges=merges, token_type=types, **keys))


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", "in 2024", ["in", "Ġ", "2", "0", "2", "4"]),
        ("gpt-2", "in 2024", ["in", "Ġ2024"]),
        ("llama-bpe", "in 2024", ["in", "Ġ", "202", "4"]),
        ("qwen2", "in 2024", ["in", "Ġ", "2", "0", "2", "4"]),
        ("tekken", "in 2024", ["in", "Ġ", "2", "0", "2", "4"]),
        ("tekken", "inIN", ["in", "IN"]),
        ("llama-bpe", "inIN", ["inIN"]),
    ],
)
def test_texts_are_divided_as_the_model_was_taught(pre: str, text: str, pieces: list[str]) -> None:
    made = byte_level(pre, "in", "IN", "inIN", "Ġ2024", "2024")
    divided = made.pre_tokenizer.pre_tokenize_str(text) if made.pre_tokenizer else []
    assert [piece for piece, _ in divided] == pieces


def test_llama_3_takes_a_whole_word_before_it_merges() -> None:
    words = {"tokens": ["a", "b", "c", "bc", "abc"], "merges": ["b c"], "token_type": [1] * 5}
    divided = {
        pre: tokenizer(Keys(model="gpt2", pre=pre, **words)).encode("abc") for pre in ("gpt-2", "llama-bpe")
    }
    assert divided["llama-bpe"].tokens == ["abc"]
    assert divided["gpt-2"].tokens == ["a", "bc"]


def test_control_tokens_are_special_and_user_defined_ones_are_not() -> None:
    tokens = ["a", "b", "<end>", "<tool>"]
    made = tokenizer(Keys(model="gpt2", tokens=tokens, merges=[], token_type=[1, 1, 3, 4]))
    assert made.encode("a<end>b<tool>").ids == [0, 2, 1, 3]
    assert made.decode([0, 2, 1, 3]) == "ab<tool>"


@pytest.mark.parametrize(
    ("pre", "keys", "begins"),
    [
        ("gpt-2", {}, False),
        ("gpt-2", {"add_bos_token": True}, True),
        ("llama-bpe", {}, True),
        ("llama-bpe", {"add_bos_token": False}, False),
    ],
)
def test_a_bare_text_begins_with_bos_where_the_model_wants_it(
    pre: str, keys: dict[str, Any], begins: bool
) -> None:
    made = byte_level(pre, "in", bos_token_id=33, **keys)
    ids = made.encode("in").ids
    assert (ids[0] == 33) is begins
    assert made.encode("in", add_special_tokens=False).ids == ids[begins:]


def sentence_piece(**keys: Any) -> Tokenizer:
    pieces = {"<unk>": 0.0, "<s>": 0.0, "</s>": 0.0}
    pieces |= {f"<0x{byte:02X}>": 0.0 for byte in range(256)}
    pieces |= {"▁t": -1.0, "he": -2.0, "▁the": -3.0, "▁a": -4.0, "n": -10.0, "▁": -11.0, "t": -12.0}
    pieces |= {"h": -13.0, "e": -14.0, "a": -15.0}
    types = [2, 3, 3] + [6] * 256 + [1] * (len(pieces) - 259)
    keys = {"bos_token_id": 1, **keys}
    return tokenizer(
        Keys(model="llama", tokens=list(pieces), scores=list(pieces.values()), token_type=types, **keys)
    )


def test_sentence_pieces_are_merged_by_score_with_bytes_for_the_rest() -> None:
    made = sentence_piece()
    assert made.encode("the an é").tokens == ["<s>", "▁the", "▁a", "n", "▁", "<0xC3>", "<0xA9>"]
    assert made.decode(made.encode("the an é").ids) == "the an é"


def test_sentence_pieces_without_a_prefix_keep_the_text_as_it_is() -> None:
    made = sentence_piece(add_space_prefix=False, add_bos_token=False)
    assert made.encode("the an").tokens == ["t", "he", "▁a", "n"]
    assert made.decode(made.encode(" the an").ids) == " the an"


@pytest.fixture(scope="module")
def embedded() -> Tokenizer:
    return tokenizer(Metadata(Path(locate().location)))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Hello world", ["Hello", "Ġworld"]),
        ("it's 1984", ["it", "'s", "Ġ", "1", "9", "8", "4"]),
        ("<|im_start|>user\n", ["<|im_start|>", "user", "Ċ"]),
        ("", []),
    ],
)
def test_the_embedded_tokenizer_divides_as_smollm2_does(
    embedded: Tokenizer, text: str, tokens: list[str]
) -> None:
    assert embedded.encode(text).tokens == tokens


@pytest.mark.parametrize("text", ["naïve café — 東京 🙂", "a\tb\n\n  c", "x = {'k': [1, 22, 333]}"])
def test_the_embedded_tokenizer_gives_texts_back(embedded: Tokenizer, text: str) -> None:
    assert embedded.decode(embedded.encode(text).ids) == text
