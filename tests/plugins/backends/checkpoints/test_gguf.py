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
from fllm_backends.checkpoints.download import fingerprint
from fllm_backends.checkpoints.gguf import extract as extraction
from fllm_backends.checkpoints.gguf.extract import check_keys, extract, extract_once
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.tokenizer import tokenizer
from fllm_backends.checkpoints.gguf.weights import GGUFWeights
from fllm_backends.torch.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tiny_gguf(tmp_path: Path, family: str = "Llama", architecture: str = "llama", **changes: Any) -> Path:
    model = save_model(family, tmp_path / "original", **{"hidden_size": 64, "head_dim": 16, **changes})
    return write_gguf(tmp_path / "tiny.gguf", model, architecture)


def extracted(path: Path) -> Path:
    metadata = Metadata(path)
    return extract_once(metadata, fingerprint(metadata.files))


def read(weights: GGUFWeights, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if len(shape) == 1:
        return torch.from_numpy(weights.vector(name, *shape))
    return torch.from_numpy(weights.matrix(name, *shape).rows(0, shape[0]))


@pytest.mark.parametrize(
    ("family", "architecture", "changes"),
    [
        ("Llama", "llama", {}),
        ("Llama", "llama", {"tie_word_embeddings": True}),
        ("Llama", "llama", {"attention_bias": True, "mlp_bias": True}),
        ("Qwen2", "qwen2", {}),
        ("Qwen3", "qwen3", {}),
    ],
)
def test_the_weights_and_the_configuration_are_those_of_the_model(
    family: str, architecture: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    path = tiny_gguf(tmp_path, family, architecture, **changes)
    before, after = Checkpoint(tmp_path / "original"), GGUFWeights(Metadata(path))
    assert set(before) == set(after)
    for name in before:
        wanted = before.read(name)
        assert torch.equal(read(after, name, wanted.shape), wanted), name
    old = msgspec.json.decode((tmp_path / "original" / "config.json").read_bytes())
    new = msgspec.json.decode((extracted(path) / "config.json").read_bytes())
    for key in ("architectures", *TINY.keys() - {"initializer_range"}, "tie_word_embeddings"):
        assert new[key] == old[key], key


@pytest.mark.parametrize("quantization", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantized_weights_come_back_close(quantization: str, tmp_path: Path) -> None:
    model = save_model("Llama", tmp_path / "original", hidden_size=64, intermediate_size=64, head_dim=16)
    after = GGUFWeights(Metadata(write_gguf(tmp_path / "tiny.gguf", model, quantization=quantization)))
    for name in ("model.layers.1.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight"):
        wanted = model.get_parameter(name)
        error = (read(after, name, wanted.shape) - wanted).abs().max() / wanted.abs().max()
        assert 0 < error < 0.16, (name, error)


def test_rows_are_read_in_pieces_of_any_size_also_where_they_are_reordered(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path)
    for name in ("model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.v_proj.weight"):
        matrix = GGUFWeights(Metadata(path)).matrix(name, *(64 if "q_" in name else 32, 64))
        for start, stop in [(0, 7), (7, 31), (15, 16), (31, 32), (3, 3)]:
            whole = matrix.rows(0, matrix.shape[0])
            assert np.array_equal(matrix.rows(start, stop), whole[start:stop]), (name, start, stop)
            assert np.array_equal(matrix.blocks(start, stop).view(np.float32), whole[start:stop])


def test_a_missing_or_misshapen_weight_is_named(tmp_path: Path) -> None:
    weights = GGUFWeights(Metadata(tiny_gguf(tmp_path)))
    with pytest.raises(ModelError, match=r"lack 'model.layers.9.mlp.up_proj.weight'"):
        weights.matrix("model.layers.9.mlp.up_proj.weight", 48, 64)
    with pytest.raises(ModelError, match=r"'output_norm.weight' .* has the shape \[1, 64\]; .* \[1, 65\]"):
        weights.vector("model.norm.weight", 65)


def test_a_file_that_is_cut_off_while_it_is_read_is_one_line(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path)
    weights = GGUFWeights(Metadata(path))
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)
    matrix = weights.matrix("model.layers.2.mlp.down_proj.weight", 64, 48)
    with pytest.raises(ModelError, match="was cut off while it was read"):
        matrix.rows(0, 64)


def test_llama_3s_rope_divisors_become_part_of_the_configuration(tmp_path: Path) -> None:
    model = save_model("Llama", tmp_path / "original")
    divisors = np.array([1, 2, 4, 8], dtype=np.float32)
    path = write_gguf(tmp_path / "tiny.gguf", model, tensors={"rope_freqs.weight": divisors})
    rope = msgspec.json.decode((extracted(path) / "config.json").read_bytes())
    assert rope["rope_parameters"]["rope_type"] == "longrope"
    assert rope["rope_parameters"]["long_factor"] == [1, 2, 4, 8]


def test_a_second_start_finds_what_was_extracted_and_no_weights(tmp_path: Path, cache: Path) -> None:
    path = tiny_gguf(tmp_path)
    first = extracted(path)
    times = {file: file.stat().st_mtime_ns for file in first.iterdir()}
    assert extracted(path) == first
    assert {file: file.stat().st_mtime_ns for file in first.iterdir()} == times
    assert not [*cache.rglob("*.safetensors*")]


def test_another_file_or_format_has_a_place_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = Metadata(tiny_gguf(tmp_path))
    places = [extract_once(metadata, "one"), extract_once(metadata, "two")]
    monkeypatch.setattr(extraction, "FORMAT_VERSION", extraction.FORMAT_VERSION + 1)
    places.append(extract_once(metadata, "one"))
    assert len(set(places)) == 3


def test_two_that_extract_at_once_agree_and_leave_nothing_behind(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = Metadata(tiny_gguf(tmp_path))
    both_are_writing = threading.Barrier(2)

    def extract_together(metadata: Metadata, directory: Path) -> None:
        extract(metadata, directory)
        both_are_writing.wait(timeout=30)

    monkeypatch.setattr(extraction, "extract", extract_together)
    found: list[Path] = []
    run = [threading.Thread(target=lambda: found.append(extract_once(metadata, "p"))) for _ in range(2)]
    for thread in run:
        thread.start()
    for thread in run:
        thread.join()
    assert found[0] == found[1]
    assert [entry.name for entry in (cache / "gguf").iterdir()] == [found[0].name]
    assert (found[0] / "tokenizer.json").is_file()


def test_an_extraction_that_fails_leaves_nothing_behind(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(metadata: Metadata, directory: Path) -> None:
        (directory / "tokenizer.json").write_text("half a tok")
        raise KeyboardInterrupt

    monkeypatch.setattr(extraction, "extract", fail)
    with pytest.raises(KeyboardInterrupt):
        extracted(tiny_gguf(tmp_path))
    assert list((cache / "gguf").iterdir()) == []


def test_a_cache_that_can_not_be_written_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set FLLM_CACHE to another directory"):
        extracted(tiny_gguf(tmp_path))


def check(metadata: Metadata, directory: Path) -> None:
    check_keys(metadata)
    extract(metadata, directory)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"llama.expert_count": 8}, "lacks 'llama.expert_used_count'"),
        ({"tokenizer.ggml.pre": "martian"}, "'martian'.* is not supported; supported: chatglm-bpe, "),
        ({"tokenizer.ggml.model": "runes"}, "kind 'runes' is not supported; supported: gpt2, llama"),
    ],
)
def test_what_is_not_known_is_refused_by_name(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = save_model("Llama", tmp_path / "original")
    metadata = Metadata(write_gguf(tmp_path / "tiny.gguf", model, keys=keys))
    with pytest.raises(ModelError, match=message):
        check(metadata, tmp_path)


def test_an_unknown_architecture_and_a_truncated_file_are_refused(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"llama", b"lemma"))
    with pytest.raises(ModelError, match="'lemma' is not supported; supported: llama, qwen2"):
        check_keys(Metadata(path))
    path.write_bytes(whole[:200])
    with pytest.raises(ModelError, match="can't be read as GGUF"):
        Metadata(path)


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"token_embd", b"token_embe"))
    with pytest.raises(ModelError, match="no weights"):
        check_keys(Metadata(path))


def test_a_foreign_tensor_is_refused(tmp_path: Path) -> None:
    model = save_model("Llama", tmp_path / "original")
    extra = {"blk.0.ffn_sub_norm.weight": np.ones(4, dtype=np.float32)}
    with pytest.raises(ModelError, match="ffn_sub_norm"):
        GGUFWeights(Metadata(write_gguf(tmp_path / "tiny.gguf", model, tensors=extra)))


def test_the_end_tokens_and_the_template_come_along(tmp_path: Path) -> None:
    directory = extracted(tiny_gguf(tmp_path))
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
        ("falcon3", "in 2024", ["in", "Ġ", "202", "4"]),
        ("gpt-4o", "in's 20241", ["in's", "Ġ", "202", "41"]),
        ("gpt-4o", "inIN", ["in", "IN"]),
        ("seed-coder", "a?\n\n", ["a", "?", "ĊĊ"]),
        ("qwen2", "a?\n\n", ["a", "?ĊĊ"]),
        ("exaone", "in 2024", ["in", "Ġ", "2", "0", "2", "4"]),
        ("mellum", "in 2024", ["in", "Ġ2024"]),
        ("deepseek-llm", "a bè-1234 \n", ["a", "Ġb", "Ã¨", "-", "1234", "Ġ", "Ċ"]),
        ("deepseek-coder", "a b-12", ["a", "Ġb", "-", "1", "2"]),
        ("deepseek-v3", "a.b 1234", ["a", ".b", "Ġ", "123", "4"]),
        ("default", "a.b 12345", ["a", ".", "b", "Ġ", "123", "45"]),
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
