"""Send a batch to the other ranks with little data: block tables, only as far as they have changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fllm.batching.runner import Row
from fllm.values import SamplingParams
from fllm_backends.torch.sharded.messages import Forward, RowPart

_SAMPLING = SamplingParams(max_tokens=1)


class BatchEncoder:
    """Writes batches on rank 0."""

    def __init__(self) -> None:
        self._tables: dict[int, list[int]] = {}
        """The last block table of each slot."""

    def encode(self, token_ids: Tensor, rows: Sequence[Row]) -> Forward:
        """Return the message for a batch with [tokens] new tokens."""
        return Forward(token_ids.to(torch.int32).numpy().tobytes(), [self._part(row) for row in rows])

    def _part(self, row: Row) -> RowPart:
        last, table = self._tables.get(row.slot, []), list(row.block_table)
        kept = len(last) if table[: len(last)] == last else 0
        self._tables[row.slot] = table
        length = len(row.token_ids) - row.drafts
        return RowPart(row.slot, row.start, row.count, length, kept, table[kept:])


class BatchDecoder:
    """Reads batches on another rank."""

    def __init__(self) -> None:
        self._tables: dict[int, list[int]] = {}

    def decode(self, message: Forward) -> tuple[Tensor, list[Row]]:
        """Return the new tokens, [tokens], and rows with all that a decoder needs of them."""
        token_ids = torch.frombuffer(bytearray(message.token_ids), dtype=torch.int32).long()
        return token_ids, [self._row(each) for each in message.rows]

    def _row(self, each: RowPart) -> Row:
        table = self._tables.get(each.slot, [])[: each.kept] + each.blocks
        self._tables[each.slot] = table
        return Row(
            token_ids=range(each.length),  # only their number is used
            prompt_length=each.length,
            start=each.start,
            count=each.count,
            block_table=table,
            slot=each.slot,
            sampling=_SAMPLING,
            seed=0,
            sample=False,
        )
