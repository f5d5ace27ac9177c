"""What a step costs: a linear model of its rows, fitted to steps that were measured on a real engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from fllm.batching import Row

Features = tuple[float, float, float, float, float, float]
"""Of a step: 1, rows that decode, tokens of prompts, prompts that end, tokens that decode rows attend to, and
pairs of a prompt token and one that it attends to."""


class ServerCosts(Struct, frozen=True, kw_only=True):
    """CPU seconds of the server around the engines, and of a client on the same machine."""

    request: float = 0.0
    """Of the server for each request, which delay its first token."""
    token: float = 0.0
    """Of the server for each token."""
    client_request: float = 0.0
    client_token: float = 0.0


class StepCosts(Struct, frozen=True, kw_only=True):
    """Seconds of the steps of one engine, which shares a machine with others, and of the server around it."""

    engines: int = 1
    """Number of engines on one machine, each with its part of the cores."""
    seconds: Features
    """What each feature of a step costs."""
    server: ServerCosts = ServerCosts()
    kv_blocks: int
    block_size: int
    max_model_len: int
    machine: str = ""
    model: str = ""
    measured: str = ""
    """Date of the measurement."""
    steps: int = 0
    """Number of steps that were measured."""
    error: float = 0.0
    """Median of the relative errors of the fit."""
    error_90: float = 0.0
    """Their 90th percentile."""

    def of_step(self, rows: Sequence[Row]) -> float:
        """Return the seconds of a step with these rows."""
        step, decode, token, end, context, pair = self.seconds
        total = step
        for row in rows:
            if is_decode(row):
                total += decode + context * (row.start + 1)
            else:
                total += token * row.count + end * row.sample + pair * pairs(row)
        return total


def is_decode(row: Row) -> bool:
    """Return whether the row computes the token that was sampled last."""
    return row.count == 1 and row.start >= row.prompt_length


def pairs(row: Row) -> float:
    """Return how many pairs of a token and one that it attends to the row has."""
    return row.count * (row.start + (row.count + 1) / 2)


def features(rows: Iterable[Row]) -> Features:
    """Return the features of a step."""
    rows = list(rows)
    decodes = [row for row in rows if is_decode(row)]
    chunks = [row for row in rows if not is_decode(row)]
    return (
        1.0,
        float(len(decodes)),
        float(sum(row.count for row in chunks)),
        float(sum(row.sample for row in chunks)),
        float(sum(row.start + 1 for row in decodes)),
        float(sum(map(pairs, chunks))),
    )


def fit(steps: Sequence[Features], seconds: Sequence[float]) -> tuple[Features, list[float]]:
    """Return non-negative coefficients with the least squares of relative errors, and these errors.

    Coefficients that would be negative are left out, the most negative first.
    """
    measured = np.asarray(seconds)
    matrix = np.asarray(steps) / measured[:, None]
    kept = [column for column in range(matrix.shape[1]) if matrix[:, column].any()]
    while True:
        solution = np.linalg.lstsq(matrix[:, kept], np.ones(len(measured)), rcond=None)[0]
        if (solution >= 0).all():
            break
        del kept[int(solution.argmin())]
    coefficients = np.zeros(matrix.shape[1])
    coefficients[kept] = solution
    return tuple(coefficients.tolist()), (matrix @ coefficients - 1).tolist()


def read_costs(file: Path, engines: int = 1) -> StepCosts:
    """Return the costs of a file for a number of engines on a machine; raise `ValueError` if it has none."""
    for costs in msgspec.json.decode(file.read_bytes(), type=list[StepCosts]):
        if costs.engines == engines:
            return costs
    raise ValueError(f"{file} has no costs for {engines} engines on a machine: run --calibrate")


def write_costs(file: Path, costs: Sequence[StepCosts]) -> None:
    """Write the costs, one JSON object for each number of engines."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(costs), indent=1) + b"\n")
