"""The options of the placement. Imports little, because `furiosa-llm plugins` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from fllm import Device

Strategy = Literal["SPREAD", "PACK"]
RESOURCE = r"[\w.-]+:[0-9]+(\.[0-9]+)?"
"""Pattern of a custom resource."""


class RayOptions(Struct, frozen=True, kw_only=True):
    """Values of ``--placement-option KEY=VALUE``: the cluster, and what each engine reserves there."""

    address: Annotated[
        str,
        Meta(
            pattern="^(auto|[^/:]+:[0-9]+)$",
            description="HOST:PORT of the cluster's head; auto: the cluster that this machine belongs to",
        ),
    ] = "auto"
    num_cpus: Annotated[float, Meta(ge=0, description="CPUs of each engine, and its number of threads")] = 1.0
    num_gpus: (
        Annotated[float, Meta(ge=0, description="GPUs of each engine; by default as many as --devices names")]
        | None
    ) = None
    memory: Annotated[
        int, Meta(ge=0, le=2**63 - 1, description="bytes of memory that each engine reserves")
    ] = 0
    resources: Annotated[
        str,
        Meta(
            pattern=rf"^({RESOURCE}(,{RESOURCE})*)?$",
            description="custom resources of each engine, such as rngd:1,rack-2:0.1",
        ),
    ] = ""
    strategy: Annotated[
        Strategy, Meta(description="SPREAD: the engines on different nodes if possible; PACK: on few nodes")
    ] = "SPREAD"
    resource_timeout: Annotated[
        float,
        Meta(
            ge=0, description="seconds to wait until the cluster, or its autoscaler, has room for an engine"
        ),
    ] = 30.0

    def __post_init__(self) -> None:
        for item in self.custom_resources:
            if item in ("CPU", "GPU", "memory"):
                raise ValueError(f"resources: {item} has its own option")

    @property
    def custom_resources(self) -> dict[str, float]:
        """The amounts of ``resources`` by name."""
        pairs = (item.split(":") for item in self.resources.split(",") if item)
        return {name: float(amount) for name, amount in pairs}

    def bundle(self, devices: tuple[Device, ...]) -> Mapping[str, float]:
        """Return what an engine on these devices reserves, in Ray's names."""
        gpus = self.num_gpus
        if gpus is None:
            gpus = sum(device.kind == "cuda" for device in devices)
        amounts = {"CPU": self.num_cpus, "GPU": gpus, "memory": self.memory, **self.custom_resources}
        # Ray accepts no empty bundle.
        return {name: amount for name, amount in amounts.items() if amount} or {"CPU": 0.001}
