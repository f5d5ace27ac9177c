"""Divide devices, cores and memory among the replicas."""

from __future__ import annotations

from msgspec.structs import replace

from fllm import BackendConfig, ConfigError, Device

DEFAULT_ENGINE_NAME = BackendConfig(model="").engine_name
LOCAL_PLACEMENT = BackendConfig(model="").placement


class Shares:
    """The configuration of each replica."""

    def __init__(self, config: BackendConfig) -> None:
        """Check that the devices can be divided. Raise `ConfigError` if not."""
        self._config = config
        self._local = config.placement == LOCAL_PLACEMENT
        self._count = config.max_replicas
        devices = len(config.devices)
        self._divides_devices = self._local and devices > 1
        if not self._divides_devices:
            return
        if devices % self._count:
            raise ConfigError(
                f"--devices has {devices} devices and --replicas is {self._count}: each replica needs the "
                "same number of them, or all of them the only one"
            )
        ranks = config.tensor_parallel_size
        if ranks is not None and devices != ranks * self._count:
            raise ConfigError(
                f"--devices has {devices} devices: --replicas {self._count} with --tensor-parallel-size "
                f"{ranks} needs {ranks * self._count}"
            )

    def config(self, name: str) -> BackendConfig:
        """Return the configuration of the replica with this name, which ends with its number."""
        config = self._config
        # The names of the engines of several models differ by the model's.
        engine = name if config.engine_name == DEFAULT_ENGINE_NAME else f"{config.engine_name}-{name}"
        return replace(
            config,
            engine_name=engine,
            devices=self._devices(int(name.rpartition("-")[2])),
            replicas=1,
            local_engines=self._count if self._local else 1,
            engines_per_device=self._count if self._local and not self._divides_devices else 1,
        )

    def _devices(self, number: int) -> tuple[Device, ...]:
        devices = self._config.devices
        if not self._divides_devices:
            return devices
        size = len(devices) // self._count
        first = number % self._count * size
        return devices[first : first + size]
