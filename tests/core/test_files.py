from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fllm.errors import ModelError
from fllm.files import check_regular, read_bounded
from fllm.model import locate
from fllm.testing import echo_model
from fllm.tokenizer import Tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"


@pytest.mark.parametrize("read", [check_regular, lambda path: read_bounded(path, 4096)])
def test_a_pointer_of_git_lfs_is_not_the_file(read: Callable[[Path], Any], tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(POINTER)
    with pytest.raises(OSError, match="fetch the file itself with `git lfs pull`"):
        read(file)
    file.write_text("{}")
    assert read(file) in (2, b"{}")


def test_a_model_whose_files_are_not_fetched_says_how_to(tmp_path: Path) -> None:
    (echo_model(tmp_path) / "tokenizer.json").write_text(POINTER)
    with pytest.raises(ModelError, match=r"tokenizer.json can't be read: it is a pointer of Git LFS"):
        Tokenizer.load(tmp_path)
    (tmp_path / "model.gguf").write_text(POINTER)
    with pytest.raises(ModelError, match=r"model.gguf' can't be read: it is a pointer of Git LFS"):
        locate(str(tmp_path / "model.gguf"))
