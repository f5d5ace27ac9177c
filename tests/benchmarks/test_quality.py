"""`benchmarks/quality.py`: the measure, the file of llama.cpp that it reads, and one run."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from support.paths import ROOT
from support.tiny_models import save_model, write_gguf

BENCHMARKS = ROOT / "benchmarks"

Stored = list[tuple[float, float, list[int]]]
"""For each scored position: a step, the least log-probability, and counts of steps above it."""


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("quality")


def write(file: Path, window: int, tokens: list[int], rows: Stored) -> Path:
    vocabulary = len(rows[0][2])
    data = b"_logits_" + np.array([window, vocabulary, len(tokens) // window, *tokens], "<i4").tobytes()
    for step, least, counts in rows:
        even = [*counts, 0] if vocabulary % 2 else counts
        data += np.array([step, least], "<f4").tobytes() + np.array(even, "<u2").tobytes()
    file.write_bytes(data)
    return file


def test_the_divergence_of_known_distributions(quality: ModuleType) -> None:
    reference = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
    candidate = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert quality.divergence(reference, candidate).tolist() == pytest.approx([expected, 0.0])


def test_logits_need_not_be_normalised(quality: ModuleType) -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    assert quality.divergence(logits, logits + 3).tolist() == pytest.approx([0.0], abs=1e-6)


def test_what_a_file_cannot_hold_is_no_divergence(quality: ModuleType) -> None:
    exact, held = torch.tensor([[0.0, -20.0, -90.0]]), torch.tensor([[0.0, -16.0, -16.0]])
    assert quality.divergence(exact, held).tolist() == [0.0]


def test_a_score_sums_up_all_positions(quality: ModuleType) -> None:
    score = quality.Score()
    score.add(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    score.add(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    wrong = math.tanh(0.5)  # what the one that differs diverges by
    assert str(score) == f"{wrong / 3:.5f} | {0.98 * wrong:.4f} | 66.7 %"


def test_a_file_of_llama_cpp_is_read(quality: ModuleType, tmp_path: Path) -> None:
    rows: Stored = [(0.5, -4.0, [0, 8, 2]), (0.25, -1.0, [4, 0, 1])]
    stored = quality.llama_logits.read(write(tmp_path / "logits", 4, [5, 6, 7, 8, 9, 1, 2, 3], rows))
    assert stored.tokens == [5, 6, 7, 8, 9, 1, 2, 3]
    assert stored.window(0).tolist() == [[-4.0, 0.0, -3.0]]
    assert stored.window(1).tolist() == [[0.0, -1.0, -0.75]]


def test_another_file_is_refused(quality: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("some text")
    with pytest.raises(ValueError, match="holds no log-probabilities"):
        quality.llama_logits.read(tmp_path / "text")


def test_a_model_that_is_not_rounded_scores_as_the_reference_itself(
    quality: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = save_model("Llama", tmp_path, max_position_embeddings=512, intermediate_size=50)
    file, text = write_gguf(tmp_path / "tiny.gguf", odd), tmp_path / "text"
    text.write_text("All-work-and-no-play" * 30)
    monkeypatch.setenv("FLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["quality.py", str(file), "--text", str(text), "--tokens", "255"])
    quality.main()
    assert capsys.readouterr().out.endswith("| ours, float32 | 0.00000 | 0.0000 | 100.0 % |\n")
