"""Matrices whose rows and columns come from other places."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fllm_backends.torch.fused.padding import PlacedMatrix, place, spread, take, take_norm
from fllm_backends.torch.weight_matrix import StackedMatrix, TensorMatrix

WEIGHT = torch.arange(24.0).view(6, 4) + 1


class Blocks(TensorMatrix):
    """A matrix of a GGUF file: its blocks are the rows as bytes."""

    gguf_type = "Q8_0"

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self.rows(start, stop).numpy().astype(np.uint8)


def test_parts_are_spread() -> None:
    assert spread(2, 3, 4).tolist() == [0, 1, 2, -1, 3, 4, 5, -1]
    assert spread(2, 3, 4, np.array([2, 0, 1])).tolist() == [2, 0, 1, -1, 5, 3, 4, -1]


def test_what_has_no_place_is_zero() -> None:
    taken = take(WEIGHT, np.array([5, -1, 0]))
    assert taken.tolist() == [[21, 22, 23, 24], [0, 0, 0, 0], [1, 2, 3, 4]]
    assert take(WEIGHT, np.array([-1, 3]), 1)[:, 1].tolist() == WEIGHT[:, 3].tolist()


def test_a_tensor_that_stays_as_it_is_is_not_copied() -> None:
    assert take(WEIGHT, np.arange(6)) is WEIGHT
    matrix = TensorMatrix(WEIGHT)
    assert place(matrix, np.arange(6), np.arange(4)) is matrix


def test_a_padded_norm_gives_what_the_norm_gives() -> None:
    x, weight, places = torch.randn(5), torch.rand(5), spread(1, 5, 8)
    wide = take_norm(weight, places)
    eps = 1e-2
    exact = torch.nn.functional.rms_norm(x, (5,), weight, eps)
    padded = torch.nn.functional.rms_norm(take(x, places), (8,), wide, eps * 5 / 8)
    torch.testing.assert_close(padded[:5], exact)


@pytest.mark.parametrize(("start", "stop"), [(0, 8), (1, 4), (3, 4), (5, 8)])
def test_rows_and_columns_are_read_from_their_places(start: int, stop: int) -> None:
    rows, columns = spread(2, 3, 4, np.array([2, 0, 1])), spread(1, 4, 6)
    matrix = PlacedMatrix(TensorMatrix(WEIGHT), rows, columns)
    assert matrix.shape == (8, 6)
    assert torch.equal(matrix.rows(start, stop), take(take(WEIGHT, rows), columns, 1)[start:stop])


def test_whole_rows_keep_their_quantization() -> None:
    rows = np.array([5, -1, 0])
    matrix = PlacedMatrix(Blocks(WEIGHT), rows, np.arange(4))
    assert matrix.gguf_type == "Q8_0"
    assert matrix.blocks(0, 3).tolist() == take(WEIGHT, rows).tolist()
    assert PlacedMatrix(Blocks(WEIGHT), rows, spread(1, 4, 6)).gguf_type is None


def test_the_parts_of_a_stack_stay_parts() -> None:
    stack = StackedMatrix((Blocks(WEIGHT[:2]), TensorMatrix(WEIGHT[2:])))
    rows = np.array([1, 0, -1, 3, 2, 5, 4, -1])
    placed = place(stack, rows, np.arange(4))
    assert isinstance(placed, StackedMatrix)
    assert [part.gguf_type for part in placed.parts] == ["Q8_0", None]
    assert [part.shape[0] for part in placed.parts] == [3, 5]
    assert torch.equal(placed.rows(0, 8), take(WEIGHT, rows))
