from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fllm.errors import ModelError
from fllm_backends.checkpoints.safetensors_files import tensor_headers


def write_shards(directory: Path, total: int, *parts: int) -> None:
    for part in parts:
        save_file({f"t{part}": torch.zeros(part)}, directory / f"model-{part:05}-of-{total:05}.safetensors")


def test_shards_need_no_index(tmp_path: Path) -> None:
    write_shards(tmp_path, 2, 1, 2)
    headers = tensor_headers(tmp_path)
    assert {name: header.shape for name, header in headers.items()} == {"t1": (1,), "t2": (2,)}
    assert headers["t2"].dtype == "F32"


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, 3, 1, 3)
    with pytest.raises(ModelError, match=r"not all shards: see model-00002-of-00003.safetensors"):
        tensor_headers(tmp_path)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    with pytest.raises(
        ModelError, match=r"model.safetensors can't be read: it is a pointer of Git LFS: .* `git lfs pull`"
    ):
        tensor_headers(tmp_path)
