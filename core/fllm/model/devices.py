"""Parse the option ``--devices``, such as ``cuda:0,cuda:1`` or ``npu:0:0-3``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NoReturn

from fllm.config import Device
from fllm.errors import ConfigError

GRAMMAR = "cpu, cpu:N, cuda, cuda:N, npu, npu:N, npu:N:*, npu:N:PE, npu:N:FIRST-LAST, rngd:N:SIZE"
"""Valid forms of one item, for error messages."""

PES_PER_NPU = 8
"""Number of processing elements of one NPU. They fuse in aligned groups of 1, 2, 4 or 8."""

_NUMBER = "[0-9]{1,9}"
_KIND_AND_INDEX = re.compile(rf"(?P<kind>[a-z][a-z0-9_]*)(?::(?P<index>{_NUMBER}))?")
_NPU = re.compile(rf"npu(?::(?P<index>{_NUMBER})(?::(?:\*|(?P<first>{_NUMBER})(?:-(?P<last>{_NUMBER}))?))?)?")
_RNGD = re.compile(rf"rngd:(?P<index>{_NUMBER}):(?P<size>{_NUMBER})")


def parse_devices(text: str, *, others: Collection[str] = ()) -> tuple[Device, ...]:
    """Parse comma-separated devices of one kind; raise `ConfigError` with the item and the valid forms.

    ``others`` are additional kinds of installed backends, written ``KIND`` or ``KIND:N``. A kind without a
    number lets the backend choose the device.
    """
    devices = tuple(_parse_item(item.strip(), text, others) for item in text.split(","))
    kinds = sorted({device.kind for device in devices})
    if len(kinds) > 1:
        raise ConfigError(f"{text!r} mixes {' and '.join(kinds)}; all devices must be of one kind")
    _check_overlap(devices, text)
    return devices


def _parse_item(item: str, text: str, others: Collection[str]) -> Device:
    kind = item.partition(":")[0]
    if kind == "npu":
        return _npu(item)
    if kind == "rngd":
        return _rngd(item)
    if not item:
        _reject(text, "empty item", others)
    if kind not in {"cpu", "cuda", *others}:
        _reject(item, "unknown kind", others)
    match = _KIND_AND_INDEX.fullmatch(item) or _reject(item, "the kind must be followed by a number", others)
    return Device(kind, int(match["index"]) if match["index"] else None)


def _npu(item: str) -> Device:
    match = _NPU.fullmatch(item) or _reject(item, "not a valid form of an NPU")
    if match["index"] is None:
        return Device("npu")
    if match["first"] is None:
        return Device("npu", int(match["index"]), (0, PES_PER_NPU - 1))
    first = int(match["first"])
    last = int(match["last"]) if match["last"] else first
    return Device("npu", int(match["index"]), _aligned_group(item, first, last))


def _rngd(item: str) -> Device:
    match = _RNGD.fullmatch(item) or _reject(item, "a number and a size are required")
    return Device("rngd", int(match["index"]), _aligned_group(item, 0, int(match["size"]) - 1))


def _aligned_group(item: str, first: int, last: int) -> tuple[int, int]:
    size = last - first + 1
    if max(first, last) >= PES_PER_NPU:
        _reject(item, f"processing elements are numbered 0 to {PES_PER_NPU - 1}")
    if size not in (1, 2, 4, 8):
        _reject(item, "processing elements fuse in groups of 1, 2, 4 or 8")
    if (last + 1) % size:
        _reject(item, f"a group of {size} must start at a multiple of {size}")
    return first, last


def _reject(item: str, why: str, others: Collection[str] = ()) -> NoReturn:
    raise ConfigError(f"{item!r} is not a valid device: {why} (valid forms: {_grammar(others)})")


def _grammar(others: Collection[str]) -> str:
    more = sorted(set(others) - {"cpu", "cuda", "npu", "rngd"})
    return ", ".join([GRAMMAR, *(f"{kind}, {kind}:N" for kind in more)])


def _check_overlap(devices: tuple[Device, ...], text: str) -> None:
    seen: set[tuple[int | None, int | None]] = set()
    for device in devices:
        for unit in _units(device):
            if unit in seen or (len(devices) > 1 and device.index is None):
                raise ConfigError(f"{text!r} names a device twice")
            seen.add(unit)


def _units(device: Device) -> Iterator[tuple[int | None, int | None]]:
    if device.parts is None:
        yield device.index, None
    else:
        first, last = device.parts
        yield from ((device.index, part) for part in range(first, last + 1))
