"""Read next-token distributions of llama.cpp: the file that ``llama-perplexity --save-all-logits`` writes."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FLOOR = 16.0
"""Distance below the largest logit of a row at which the file cuts off; lower logits are raised to it."""

_MAGIC = b"_logits_"
_SCALES = 4
"""Elements at the beginning of a row that hold two float32."""


@dataclass(frozen=True)
class Stored:
    """An open file: a text in windows, and the distributions at the scored positions."""

    tokens: list[int]
    vocabulary: int
    rows: NDArray[np.uint16]
    """[windows, positions, values]: two float32 (step, minimum log-probability), then counts of steps."""

    def window(self, index: int) -> Tensor:
        """Return the log-probabilities of a window: [positions, vocabulary]."""
        rows = self.rows[index]
        step, minimum = np.split(rows[:, :_SCALES].copy().view(np.float32), 2, axis=1)
        return torch.from_numpy(minimum + step * rows[:, _SCALES : _SCALES + self.vocabulary])


def scored(window: int) -> slice:
    """Return the scored positions of a window: its second half except the last, which no token follows."""
    return slice(window // 2, window - 1)


def save(
    program: str | Path, model: str | Path, text: Path, window: int, windows: int, file: Path, *options: str
) -> None:
    """Run ``llama-perplexity`` over a text in windows of ``window`` tokens. Raise `CalledProcessError`."""
    sizes = ["-c", str(window), "-b", str(window), "--chunks", str(windows)]
    command = [program, "-m", model, "-f", text, *sizes, "--save-all-logits", file, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def read(file: Path) -> Stored:
    """Open a file that `save` wrote. Raise `ValueError` for any other file."""
    with file.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{file} holds no log-probabilities of llama-perplexity")
        window, vocabulary, windows = np.fromfile(stream, "<i4", 3).tolist()
        tokens = np.fromfile(stream, "<i4", windows * window)
        at = stream.tell()
    positions = scored(window)
    shape = windows, positions.stop - positions.start, _SCALES + vocabulary + vocabulary % 2
    return Stored(tokens.tolist(), vocabulary, np.memmap(file, "<u2", "r", at, shape))
