"""The options of the backend. Imports little, because `furiosa-llm plugins` reads them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1)]


class RngdOptions(Struct, frozen=True, kw_only=True):
    """Values of ``--backend-option KEY=VALUE``."""

    fxb: (
        Annotated[
            str, Meta(description="path of the compiled bundle; by default, a matching one is searched")
        ]
        | None
    ) = None
    data_parallel_size: (
        Annotated[Count, Meta(description="number of replicas; by default, as many as fit")] | None
    ) = None
    pipeline_parallel_size: (
        Annotated[Count, Meta(description="number of stages; by default, that of the bundle")] | None
    ) = None
    max_io_memory_mb: Annotated[Count, Meta(description="MiB of buffers per pool of devices")] | None = None
