"""Absurd, lying and damaged files of a model: each loads, or is one line of a `UserError` in little time."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tiny_models import save_model, write_gguf

from fllm.errors import ModelError, UserError
from fllm.model import locate
from fllm.testing.echo import echo_model
from fllm.tokenizer import Tokenizer
from fllm_backends.checkpoints.architecture import read_architecture
from fllm_backends.checkpoints.download import check_local_model, fingerprint
from fllm_backends.checkpoints.gguf.extract import check_keys, extract
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.weights import GGUFWeights
from fllm_backends.checkpoints.model_card import read_model_card
from fllm_backends.checkpoints.safetensors_files import INDEX
from fllm_backends.torch.gguf_source import GGUFSource
from fllm_backends.torch.model import CausalLM
from fllm_backends.torch.weights import load_weights

CONFIG, GENERATION, TOKENIZER_CONFIG = "config.json", "generation_config.json", "tokenizer_config.json"
WEIGHTS = "model.safetensors"
MAX_SECONDS, MAX_BYTES = 20.0, 1 << 30
"""Limits of one load, far above what it takes."""


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("undamaged") / "model"
    config = echo_model(directory) / CONFIG
    config.unlink()
    save_model("Llama", directory, hidden_size=64, head_dim=16, vocab_size=256)
    return directory


@pytest.fixture(scope="module")
def gguf_content(undamaged: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory: Path = tmp_path_factory.mktemp("gguf")
    model = save_model("Llama", directory / "model", hidden_size=64, head_dim=16)
    return write_gguf(directory / "tiny.gguf", model).read_bytes()


@pytest.fixture
def model(undamaged: Path, tmp_path: Path) -> Path:
    shutil.copytree(undamaged, tmp_path / "model")
    return tmp_path / "model"


def load(directory: Path) -> None:
    """Read a model as the torch backend and the server do."""
    check_local_model(locate(str(directory)), weights=True)
    architecture = read_architecture(directory)
    read_model_card(directory, architecture, fingerprint([directory / CONFIG]), {})
    Tokenizer.load(directory)


def load_gguf(content: bytes, directory: Path) -> None:
    """Read a GGUF file of this content as the torch backend does."""
    file = directory / "model.gguf"
    file.write_bytes(content)
    metadata = Metadata(file)
    check_keys(metadata)
    shutil.rmtree(directory / "extracted", ignore_errors=True)
    (directory / "extracted").mkdir()
    extract(metadata, directory / "extracted")
    architecture = read_architecture(directory / "extracted")
    read_model_card(directory / "extracted", architecture, fingerprint([file]), {})
    source = GGUFSource(GGUFWeights(metadata), torch.device("cpu"), torch.float32)
    CausalLM(architecture, load_weights(architecture, source, lambda _: None))


def error_of(function: Callable[..., None], *arguments: Any) -> str:
    """Return the message of the error that a load ends with, or ``""``; it must be a `UserError`."""
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        function(*arguments)
        message = ""
    except UserError as error:
        message = error.message
    assert time.process_time() - began < MAX_SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024 < MAX_BYTES
    assert len(message) < 2000
    return message


def change(directory: Path, file: str, **changes: Any) -> None:
    content = json.loads((directory / file).read_bytes())
    (directory / file).write_text(json.dumps(content | changes))


YARN = {"rope_type": "yarn", "factor": 2.0}
ABSURD: list[tuple[str, str, Any]] = [
    (CONFIG, "eos_token_id", [[1]]),
    (CONFIG, "eos_token_id", -1),
    (CONFIG, "eos_token_id", "2"),
    (CONFIG, "max_position_embeddings", 2**50),
    (CONFIG, "max_position_embeddings", 0),
    (CONFIG, "max_position_embeddings", -1),
    (CONFIG, "max_position_embeddings", 1e308),
    (CONFIG, "max_position_embeddings", float("nan")),
    (CONFIG, "max_position_embeddings", "128"),
    (CONFIG, "num_hidden_layers", 10**9),
    (CONFIG, "num_hidden_layers", 0),
    (CONFIG, "hidden_size", 0),
    (CONFIG, "hidden_size", 2**40),
    (CONFIG, "num_attention_heads", 0),
    (CONFIG, "num_attention_heads", 3),
    (CONFIG, "num_key_value_heads", 3),
    (CONFIG, "head_dim", 15),
    (CONFIG, "vocab_size", 10**12),
    (CONFIG, "rms_norm_eps", -1),
    (CONFIG, "tie_word_embeddings", "maybe"),
    (CONFIG, "architectures", 7),
    (CONFIG, "architectures", [[]]),
    (CONFIG, "quantization_config", "fp8"),
    (CONFIG, "rope_parameters", "yarn"),
    (CONFIG, "rope_parameters", {"rope_type": ["yarn"]}),
    (CONFIG, "rope_parameters", {"rope_type": "spiral"}),
    (CONFIG, "rope_parameters", YARN | {"factor": 0}),
    (CONFIG, "rope_parameters", YARN | {"factor": 1e6, "original_max_position_embeddings": 2**30}),
    (CONFIG, "rope_parameters", YARN | {"rope_theta": 1}),
    (CONFIG, "rope_parameters", {"rope_type": "llama3", "factor": 2, "high_freq_factor": 1}),
    (GENERATION, "temperature", -1),
    (GENERATION, "top_p", 2),
    (GENERATION, "top_k", "x"),
    (GENERATION, "repetition_penalty", 0),
    (GENERATION, "max_new_tokens", -5),
    (GENERATION, "eos_token_id", [1, 2, 2**40]),
    (TOKENIZER_CONFIG, "bos_token", 5),
    (TOKENIZER_CONFIG, "eos_token", ["</s>"]),
]


def test_the_undamaged_model_loads(model: Path, gguf_content: bytes, tmp_path: Path) -> None:
    assert error_of(load, model) == ""
    assert error_of(load_gguf, gguf_content, tmp_path) == ""


@pytest.mark.parametrize(("file", "key", "value"), ABSURD, ids=[f"{key}={value}" for _, key, value in ABSURD])
def test_an_absurd_value_is_one_line_that_names_the_file(
    file: str, key: str, value: Any, model: Path
) -> None:
    change(model, file, **{key: value})
    assert file in error_of(load, model)


@pytest.mark.parametrize("file", [CONFIG, GENERATION, TOKENIZER_CONFIG, "tokenizer.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff\xfe{}", b'{"a": "\xc3("}', b"[" * 100_000, b'{"a":' * 100_000, b"nul"],
)
def test_a_file_that_is_no_json_object_is_one_line_that_names_it(
    file: str, content: bytes, model: Path
) -> None:
    (model / file).write_bytes(content)
    assert file in error_of(load, model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("file", "key"), [(CONFIG, "rope_theta"), (GENERATION, "temperature")])
def test_a_number_that_is_not_finite_is_in_no_range(file: str, key: str, value: float, model: Path) -> None:
    change(model, file, **{key: value})
    if key == "rope_theta":
        change(model, file, rope_parameters=None)
    assert file in error_of(load, model)


def test_an_eos_token_beyond_the_vocabulary_is_refused_if_there_is_no_other(model: Path) -> None:
    change(model, CONFIG, eos_token_id=None)
    change(model, GENERATION, eos_token_id=[256])
    assert "generation_config.json: eos_token_id 256 is beyond the vocabulary" in error_of(load, model)


@pytest.mark.parametrize("file", [CONFIG, GENERATION, TOKENIZER_CONFIG, "tokenizer.json", WEIGHTS])
@pytest.mark.parametrize("kind", ["fifo", "directory", "loop", "device", "endless"])
def test_a_file_that_is_not_a_regular_file_is_one_line(file: str, kind: str, model: Path) -> None:
    path = model / file
    path.unlink()
    {
        "fifo": lambda: os.mkfifo(path),
        "directory": path.mkdir,
        "loop": lambda: path.symlink_to(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "endless": lambda: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**34),  # sparse
    }[kind]()
    assert error_of(load, model)


def header(tensors: Any, *, length: int | None = None, data: int = 64) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


TENSOR = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    "content",
    [
        header({}, length=2**60),
        header({}, length=2**64 - 1),
        header({"a": TENSOR | {"data_offsets": [0, 128]}}),
        header({"a": TENSOR | {"data_offsets": [64, 0]}}),
        header({"a": TENSOR, "b": TENSOR}),
        header({"a": TENSOR | {"shape": [2**40, 2**40]}}),
        header({"a": TENSOR | {"shape": [-16]}}),
        header({"a": TENSOR | {"dtype": "F31"}}),
        header([]),
        b"",
        b"\0" * 7,
    ],
)
def test_a_lying_header_of_safetensors_is_one_line(content: bytes, model: Path) -> None:
    (model / WEIGHTS).write_bytes(content)
    assert WEIGHTS in error_of(load, model)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "sub/model.safetensors", "x.bin", ""])
def test_an_index_names_only_files_next_to_it(name: str, model: Path) -> None:
    (model / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    assert "next to it" in error_of(load, model)


def gguf(
    *keys: bytes, tensors: int = 0, count: int | None = None, rest: bytes = b"", version: int = 3
) -> bytes:
    number = len(keys) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", version, tensors, number) + b"".join(keys) + rest


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


def tensor(*dimensions: int, kind: int = 0, offset: int = 0) -> bytes:
    shape = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return struct.pack("<Q", 1) + b"a" + shape + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gguf(tensors=2**63), "9223372036854775808 tensors"),
        (gguf(count=2**40), "1099511627776 keys"),
        (gguf(count=2**40, rest=bytes(2**24)), "1099511627776 keys"),
        (gguf(count=9_999, rest=bytes(2**20)), "GGUF"),
        (gguf(struct.pack("<Q", 2**62)), "bytes in a text"),
        (gguf(key(b"a", 8, struct.pack("<Q", 2**62))), "bytes in a text"),
        (gguf(key(b"a", 9, struct.pack("<IQ", 8, 2**40))), "elements in arrays"),
        (gguf(key(b"a", 9, struct.pack("<IQ", 4, 7_000_000))), "truncated"),
        (gguf(key(b"a", 9, struct.pack("<IQ", 9, 1000))), "unknown type 9"),
        (gguf(key(b"a", 13, b"")), "unknown type 13"),
        (gguf(key(b"general.alignment", 4, struct.pack("<I", 0))), "alignment 0"),
        (gguf(key(b"general.alignment", 4, struct.pack("<I", 3))), "alignment 3"),
        (gguf(tensors=1, rest=tensor(*[2] * 9)), "dimensions of a tensor"),
        (gguf(tensors=1, rest=tensor(2**33, 2**33)), "values in a tensor"),
        (gguf(tensors=1, rest=tensor(2, kind=999)), "GGUF"),
        (gguf(tensors=1, rest=tensor(2, offset=2**63)), "before a tensor"),
        (gguf(tensors=1, rest=tensor(2**20)), "GGUF"),
        (gguf(version=99), "version 99"),
        (gguf(), "not supported"),
        (b"GGUF", "truncated"),
    ],
)
def test_a_lying_header_of_gguf_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    assert message in error_of(load_gguf, content, tmp_path)


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**400, 0.5, 1e308, 1e-320, "", "1", "yarn", "silu"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("file", [CONFIG, GENERATION, TOKENIZER_CONFIG])
@FUZZ
@given(data=st.data())
def test_any_value_in_a_configuration_loads_or_is_one_line(
    file: str, data: st.DataObject, undamaged: Path, model: Path
) -> None:
    content = json.loads((undamaged / file).read_bytes())
    extra = ["rope_parameters", "rope_scaling", "layer_types", "sliding_window", "eos_token_id", "eos_token"]
    names = st.sampled_from(sorted({*content, *extra, "temperature", "top_k", "no_rope_layers"}))
    content |= data.draw(st.dictionaries(names, ANY_JSON, min_size=1, max_size=3))
    (model / file).write_text(json.dumps(content))
    error_of(load, model)


@FUZZ
@given(data=st.data())
def test_a_garbled_tokenizer_loads_or_is_one_line(data: st.DataObject, undamaged: Path, model: Path) -> None:
    content = bytearray((undamaged / "tokenizer.json").read_bytes())
    garble(content, data)
    (model / "tokenizer.json").write_bytes(content)
    error_of(load, model)


@FUZZ
@given(data=st.data())
def test_a_garbled_header_of_safetensors_loads_or_is_one_line(
    data: st.DataObject, undamaged: Path, model: Path
) -> None:
    content = bytearray((undamaged / WEIGHTS).read_bytes())
    garble(content, data, end=2000)
    (model / WEIGHTS).write_bytes(content)
    error_of(load, model)


@FUZZ
@given(data=st.data())
def test_a_garbled_gguf_file_is_converted_or_is_one_line(
    data: st.DataObject, gguf_content: bytes, tmp_path: Path
) -> None:
    content = bytearray(gguf_content)
    garble(content, data, end=4000)
    error_of(load_gguf, bytes(content), tmp_path)


def garble(content: bytearray, data: st.DataObject, end: int | None = None) -> None:
    """Replace, remove or insert a few bytes before ``end``."""
    last = min(end or len(content), len(content)) - 1
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, last))
        new = data.draw(
            st.sampled_from([b"", b"\0", b"\xff" * 8, b"9" * 20, b"-", b'"', b"{[", b"\x01" + bytes(7)])
        )
        content[at : at + data.draw(st.integers(0, 8))] = new


def test_a_directory_is_no_gguf_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(ModelError, match="not a regular file"):
        locate(str(tmp_path / "model.gguf"))
