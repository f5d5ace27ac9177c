"""What ``--devices`` means: ``cuda:0,cuda:1``, ``npu:0:0-3``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NoReturn

from fllm.config import Device
from fllm.errors import ConfigError

GRAMMAR = "cpu, cpu:N, cuda, cuda:N, npu, npu:N, npu:N:*, npu:N:PE, npu:N:FIRST-LAST, rngd:N:SIZE"
"""The forms of one item, as an error shows them."""

PES_PER_NPU = 8
"""Processing elements of one NPU; they fuse in aligned groups of 1, 2, 4 or 8."""

_NUMBER = "[0-9]{1,9}"
_WHOLE = re.compile(rf"(?P<kind>[a-z][a-z0-9_]*)(?::(?P<index>{_NUMBER}))?")
_NPU = re.compile(rf"npu(?::(?P<index>{_NUMBER})(?::(?:\*|(?P<first>{_NUMBER})(?:-(?P<last>{_NUMBER}))?))?)?")
_RNGD = re.compile(rf"rngd:(?P<index>{_NUMBER}):(?P<size>{_NUMBER})")


def parse_devices(text: str, *, others: Collection[str] = ()) -> tuple[Device, ...]:
    """Comma-separated devices of one kind; raises `ConfigError` that quotes the item and the grammar.

    ``others`` are kinds that installed backends serve beyond ours; they read ``KIND`` and ``KIND:N``. A kind
    alone leaves it to the backend which one it takes.
    """
    devices = tuple(_parse_item(item.strip(), text, others) for item in text.split(","))
    kinds = sorted({device.kind for device in devices})
    if len(kinds) > 1:
        raise ConfigError(f"{text!r} mixes {' and '.join(kinds)}; all devices must be of one kind")
    _refuse_overlap(devices, text)
    return devices


def _parse_item(item: str, text: str, others: Collection[str]) -> Device:
    kind = item.partition(":")[0]
    if kind == "npu":
        return _npu(item)
    if kind == "rngd":
        return _rngd(item)
    if not item:
        _refuse(text, "it has an empty item", others)
    if kind not in {"cpu", "cuda", *others}:
        _refuse(item, "its kind is unknown", others)
    match = _WHOLE.fullmatch(item) or _refuse(item, "what follows the kind must be a number", others)
    return Device(kind, int(match["index"]) if match["index"] else None)


def _npu(item: str) -> Device:
    match = _NPU.fullmatch(item) or _refuse(item, "it does not follow the form of an NPU")
    if match["index"] is None:
        return Device("npu")
    if match["first"] is None:
        return Device("npu", int(match["index"]), (0, PES_PER_NPU - 1))
    first = int(match["first"])
    last = int(match["last"]) if match["last"] else first
    return Device("npu", int(match["index"]), _fused(item, first, last))


def _rngd(item: str) -> Device:
    match = _RNGD.fullmatch(item) or _refuse(item, "it needs a number and a size")
    return Device("rngd", int(match["index"]), _fused(item, 0, int(match["size"]) - 1))


def _fused(item: str, first: int, last: int) -> tuple[int, int]:
    size = last - first + 1
    if max(first, last) >= PES_PER_NPU:
        _refuse(item, f"processing elements go from 0 to {PES_PER_NPU - 1}")
    if size not in (1, 2, 4, 8):
        _refuse(item, "processing elements fuse in groups of 1, 2, 4 or 8")
    if (last + 1) % size:
        _refuse(item, f"a group of {size} must begin at a multiple of {size}")
    return first, last


def _refuse(item: str, why: str, others: Collection[str] = ()) -> NoReturn:
    raise ConfigError(f"{item!r} is no device: {why} (one of: {_grammar(others)})")


def _grammar(others: Collection[str]) -> str:
    more = sorted(set(others) - {"cpu", "cuda", "npu", "rngd"})
    return ", ".join([GRAMMAR, *(f"{kind}, {kind}:N" for kind in more)])


def _refuse_overlap(devices: tuple[Device, ...], text: str) -> None:
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
