from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.tiny_models import save_model, write_gguf

from fllm.errors import ModelError
from fllm_backends.checkpoints.weights_fingerprint import SAMPLE_BYTES, fingerprint_weights


def write(path: Path, **changes: float) -> str:
    """Write three tensors, add a number to some of them, and return the fingerprint."""
    sizes = {"small": 3, "large": 40 * SAMPLE_BYTES, "last": SAMPLE_BYTES}
    save_file(
        {
            name: np.arange(size, dtype=np.float32) + np.float32(changes.get(name, 0))
            for name, size in sizes.items()
        },
        path,
    )
    return fingerprint_weights([path])


def test_a_change_of_any_one_tensor_is_another_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    changed = [write(path, **{name: 1.0}) for name in ("small", "large", "last")]
    assert len({write(path), *changed}) == 4
    assert write(path) == write(tmp_path / "copy.safetensors")


def test_a_gguf_file_and_a_file_of_another_kind_are_told_apart_by_their_content(tmp_path: Path) -> None:
    model = save_model("Llama", tmp_path)
    file = tmp_path / "m.gguf"
    write_gguf(file, model)
    before = fingerprint_weights([file, tmp_path / "config.json"])
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert fingerprint_weights([file, tmp_path / "config.json"]) != before
    content[-1] ^= 1
    file.write_bytes(content)
    assert fingerprint_weights([file, tmp_path / "config.json"]) == before
    (tmp_path / "config.json").write_text("{}")
    assert fingerprint_weights([file, tmp_path / "config.json"]) != before


@pytest.mark.parametrize("content", [b"", b"\xff" * 9, b"\x02\0\0\0\0\0\0\0{]", None])
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors can't be read"):
        fingerprint_weights([path])
