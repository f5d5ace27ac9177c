from __future__ import annotations

import pytest

from fllm.errors import ModelError
from fllm_backends.checkpoints.gguf.hub_files import choose_files, may_hold_gguf

FILES = [
    *("README.md", "config.json", "mmproj-F16.gguf", "imatrix_unsloth.gguf", "Llama-3.2-1B-Q8_0.gguf"),
    *("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "llama-3.2-1b.IQ4_XS.gguf", "Llama-3.2-1B-UD-Q2_K_XL.gguf"),
    *("BF16/Llama-BF16-00002-of-00002.gguf", "BF16/Llama-BF16-00001-of-00002.gguf"),
]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("", ["Llama-3.2-1B-Instruct-Q4_K_M.gguf"]),
        ("q8_0", ["Llama-3.2-1B-Q8_0.gguf"]),
        ("IQ4_XS", ["llama-3.2-1b.IQ4_XS.gguf"]),
        ("UD-Q2_K_XL", ["Llama-3.2-1B-UD-Q2_K_XL.gguf"]),
        ("llama-3.2-1b.IQ4_XS.gguf", ["llama-3.2-1b.IQ4_XS.gguf"]),
        ("BF16", ["BF16/Llama-BF16-00001-of-00002.gguf", "BF16/Llama-BF16-00002-of-00002.gguf"]),
    ],
)
def test_a_quantization_has_all_its_files_and_no_others(name: str, files: list[str]) -> None:
    assert choose_files("org/model", FILES, name) == files


def test_the_only_quantization_needs_no_name() -> None:
    assert choose_files("org/model", ["mmproj-F16.gguf", "model-Q8_0.gguf"]) == ["model-Q8_0.gguf"]
    assert choose_files("org/model", ["model.gguf"]) == ["model.gguf"]


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        (FILES, "Q3_K_M", r"no GGUF file Q3_K_M; .*: BF16, Q4_K_M, Q8_0, UD-Q2_K_XL, IQ4_XS"),
        (["a-Q8_0.gguf", "a-Q6_K.gguf"], "", "several GGUF files, but no Q4_K_M; .*: Q6_K, Q8_0"),
        (["config.json", "model.safetensors"], "Q4_K_M", "has no GGUF file"),
    ],
)
def test_what_is_not_there_lists_what_is(files: list[str], name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        choose_files("org/model", files, name)


def test_a_name_tells_gguf_files_from_safetensors() -> None:
    assert may_hold_gguf("org/model:Q4_K_M")
    assert may_hold_gguf("unsloth/Llama-3.2-1B-Instruct-GGUF")
    assert not may_hold_gguf("meta-llama/Llama-3.2-1B")
