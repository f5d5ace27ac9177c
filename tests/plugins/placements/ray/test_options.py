"""The options of the placement, and what each engine reserves."""

from __future__ import annotations

import pytest

from fllm import ConfigError, Device, placement_options
from fllm_placements.ray.options import RayOptions


def options(**given: str) -> RayOptions:
    return placement_options(given, RayOptions)


def test_an_engine_reserves_one_cpu_by_default() -> None:
    assert options().bundle(()) == {"CPU": 1}


def test_an_engine_reserves_a_gpu_for_each_cuda_device() -> None:
    devices = (Device("cuda", 0), Device("cuda", 1), Device("cpu"))
    assert options().bundle(devices) == {"CPU": 1, "GPU": 2}
    assert options(num_gpus="0.5").bundle(devices) == {"CPU": 1, "GPU": 0.5}


def test_an_engine_reserves_what_the_options_name() -> None:
    given = options(num_cpus="2.5", memory="1000000000", resources="rngd:1,rack-2:0.1")
    assert given.bundle(()) == {"CPU": 2.5, "memory": 1_000_000_000, "rngd": 1, "rack-2": 0.1}


def test_an_engine_without_any_reservation_still_has_a_bundle() -> None:
    assert options(num_cpus="0").bundle(()) == {"CPU": 0.001}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("address", "ray://head:10001"),
        ("address", "head"),
        ("num_cpus", "-1"),
        ("num_gpus", "one"),
        ("memory", "9" * 30),
        ("resources", "rngd"),
        ("resources", "rngd:1.2.3"),
        ("resources", "GPU:1"),
        ("strategy", "RANDOM"),
        ("resource_timeout", "-1"),
    ],
)
def test_an_invalid_value_is_refused_with_its_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--placement-option.*{name}"):
        options(**{name: value})
