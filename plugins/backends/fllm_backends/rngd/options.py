"""What ``--backend-option`` says to the vendor's engine. Light: `furiosa-llm plugins` reads it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1)]


class RngdOptions(Struct, frozen=True, kw_only=True):
    """``--backend-option KEY=VALUE``."""

    fxb: Annotated[str, Meta(description="the compiled bundle; else one that fits is looked for")] | None = (
        None
    )
    data_parallel_size: (
        Annotated[Count, Meta(description="replicas; else as many as there is room for")] | None
    ) = None
    pipeline_parallel_size: Annotated[Count, Meta(description="stages; else as the bundle says")] | None = (
        None
    )
    max_io_memory_mb: Annotated[Count, Meta(description="MiB of buffers for each pool of devices")] | None = (
        None
    )
