"""`benchmarks/peers/weights.py`: the weights of a GGUF file, as other engines read them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.paths import ROOT
from support.tiny_models import save_model, write_gguf


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("peers.weights")


def test_a_model_is_written_in_hugging_faces_layout_in_parts(
    weights: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PART_BYTES", 20_000)
    model = save_model("Llama", tmp_path / "source")
    file = write_gguf(tmp_path / "tiny.gguf", model)
    target = weights.write_once(tmp_path / "target", lambda into: weights.write_hugging_face(file, into))
    places = json.loads((target / "model.safetensors.index.json").read_text())["weight_map"]
    parts = {part: load_file(target / part) for part in set(places.values())}
    assert len(parts) > 1
    expected = {name: value for name, value in model.state_dict().items() if name in places}
    assert "model.layers.1.self_attn.q_proj.weight" in expected
    for name, value in expected.items():
        torch.testing.assert_close(parts[places[name]][name], value)
    assert {each.name for each in target.iterdir()} >= {"config.json", "tokenizer.json"}


def test_a_file_in_float16_has_the_keys_and_the_values(weights: ModuleType, tmp_path: Path) -> None:
    model = save_model("Llama", tmp_path / "source", intermediate_size=64)
    file = write_gguf(tmp_path / "tiny.gguf", model, quantization="Q8_0")
    weights.write_float16(file, tmp_path / "f16.gguf")
    source, result = gguf.GGUFReader(file), gguf.GGUFReader(tmp_path / "f16.gguf")
    assert result.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_F16
    kept = {name for name in source.fields if not name.startswith(("GGUF.", "general.quantization"))}
    assert kept <= set(result.fields)
    assert (
        result.fields["tokenizer.ggml.tokens"].contents() == source.fields["tokenizer.ggml.tokens"].contents()
    )
    for old, new in zip(source.tensors, result.tensors, strict=True):
        assert new.name == old.name
        assert new.tensor_type.name == ("F16" if len(old.shape) > 1 else "F32")
        exact = gguf.dequantize(old.data, old.tensor_type)
        assert gguf.dequantize(new.data, new.tensor_type) == pytest.approx(exact, rel=1e-3, abs=1e-6)
        assert np.array_equal(new.shape, old.shape)


def test_what_is_not_complete_is_written_again(weights: ModuleType, tmp_path: Path) -> None:
    def fail(into: Path) -> None:
        (into / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights.write_once(tmp_path / "model", fail)
    target = weights.write_once(tmp_path / "model", lambda into: (into / "whole").touch())
    assert [each.name for each in target.iterdir()] == ["whole"]
    assert weights.write_once(target, fail) == target
