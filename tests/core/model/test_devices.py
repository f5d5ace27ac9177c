"""The grammar of ``--devices``: the vendor's server's, except for invalid devices that it accepts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.config import Device
from fllm.errors import ConfigError
from fllm.model.devices import GRAMMAR, parse_devices

WHOLE = (0, 7)

ACCEPTED = {
    "cpu": [Device("cpu")],
    "cpu:0": [Device("cpu", 0)],
    "cpu:3": [Device("cpu", 3)],
    "cuda": [Device("cuda")],
    "cuda:0": [Device("cuda", 0)],
    "cuda:0,cuda:1": [Device("cuda", 0), Device("cuda", 1)],
    "cuda:10": [Device("cuda", 10)],
    "npu": [Device("npu")],
    "npu:0": [Device("npu", 0, WHOLE)],
    "npu:0:*": [Device("npu", 0, WHOLE)],
    "npu:1:0": [Device("npu", 1, (0, 0))],
    "npu:1:7": [Device("npu", 1, (7, 7))],
    "npu:0:0-0": [Device("npu", 0, (0, 0))],
    "npu:0:0-1": [Device("npu", 0, (0, 1))],
    "npu:0:2-3": [Device("npu", 0, (2, 3))],
    "npu:0:6-7": [Device("npu", 0, (6, 7))],
    "npu:0:0-3": [Device("npu", 0, (0, 3))],
    "npu:0:4-7": [Device("npu", 0, (4, 7))],
    "npu:0:0-7": [Device("npu", 0, WHOLE)],
    "npu:0,npu:1": [Device("npu", 0, WHOLE), Device("npu", 1, WHOLE)],
    "npu:0:0-3,npu:0:4-7": [Device("npu", 0, (0, 3)), Device("npu", 0, (4, 7))],
    " npu:0:0-3 ,  npu:1:* ": [Device("npu", 0, (0, 3)), Device("npu", 1, WHOLE)],
    "rngd:0:1": [Device("rngd", 0, (0, 0))],
    "rngd:0:2": [Device("rngd", 0, (0, 1))],
    "rngd:1:4": [Device("rngd", 1, (0, 3))],
    "rngd:2:8": [Device("rngd", 2, WHOLE)],
}

REJECTED = {
    "npu:0:8": "numbered 0 to 7",
    "npu:0:8-9": "numbered 0 to 7",
    "npu:0:0-15": "numbered 0 to 7",
    "npu:0:1-2": "multiple of 2",
    "npu:0:3-6": "multiple of 4",
    "npu:0:0-2": "groups of 1, 2, 4 or 8",
    "npu:0:3-0": "groups of 1, 2, 4 or 8",
    "npu:a": "form of an NPU",
    "npu:": "form of an NPU",
    "npu:0:": "form of an NPU",
    "npu:0:0:0": "form of an NPU",
    "npu:0:0-": "form of an NPU",
    "npu:-1": "form of an NPU",
    "npu:0:*,": "empty item",
    "npu:٣": "form of an NPU",
    "NPU:0": "unknown kind",
    "rngd": "number and a size",
    "rngd:0": "number and a size",
    "rngd:0:3": "groups of 1, 2, 4 or 8",
    "rngd:0:0": "groups of 1, 2, 4 or 8",
    "rngd:0:16": "numbered 0 to 7",
    "gpu:0": "unknown kind",
    "cuda:": "followed by a number",
    "cuda:x": "followed by a number",
    "cuda:0:1": "followed by a number",
    "cuda:-1": "followed by a number",
    "cpu:1.5": "followed by a number",
    "": "empty item",
    " ": "empty item",
    "cuda:0,,cuda:1": "empty item",
    "cpu,cuda:0": "mixes cpu and cuda",
    "npu:0,rngd:0:4": "mixes npu and rngd",
    "cuda:0,cuda:0": "twice",
    "cuda,cuda:0": "twice",
    "npu:0:0-3,npu:0:2": "twice",
}


@pytest.mark.parametrize(("text", "devices"), ACCEPTED.items())
def test_a_valid_device_is_parsed(text: str, devices: list[Device]) -> None:
    assert parse_devices(text) == tuple(devices)


@pytest.mark.parametrize(("text", "why"), REJECTED.items())
def test_an_invalid_device_is_rejected_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_devices(text)


def test_an_error_quotes_the_item_and_the_grammar() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_devices("npu:0:0-3,npu:0:9")
    assert "'npu:0:9'" in caught.value.message
    assert GRAMMAR in caught.value.message


def test_kinds_of_installed_backends_extend_the_grammar() -> None:
    assert parse_devices("xpu:1", others={"xpu"}) == (Device("xpu", 1),)
    with pytest.raises(ConfigError, match="xpu, xpu:N"):
        parse_devices("tpu", others={"xpu"})


@given(st.integers(0, 20), st.integers(0, 20))
def test_a_range_of_processing_elements_is_an_aligned_group(first: int, last: int) -> None:
    size = last - first + 1
    fits = last <= 7 and size in (1, 2, 4, 8) and first % size == 0
    text = f"npu:0:{first}-{last}"
    if fits:
        assert parse_devices(text) == (Device("npu", 0, (first, last)),)
    else:
        with pytest.raises(ConfigError):
            parse_devices(text)


@given(st.text(alphabet="npurgdcd:*-, 0123789x", max_size=16))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    try:
        devices = parse_devices(text)
    except ConfigError:
        return
    assert len({device.kind for device in devices}) == 1
