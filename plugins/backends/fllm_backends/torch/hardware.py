"""Detect the machine's devices, cores and memory."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fllm.config import Device
from fllm.errors import ConfigError, ModelError
from fllm_backends.torch.cpu_binding import first_threads

if TYPE_CHECKING:
    import torch

MIN_CACHE_TOKENS = 512
"""Tokens for whose KV cache a device must have memory, next to the weights."""
_CPU_SHARE, _CPU_CAP = 0.25, 4 * 1024**3
_CUDA_SHARE = 0.85
_CAPABILITY = {"int8": (8, 0), "fp8": (8, 9)}
"""Minimum compute capability of each quantization."""


def default_device() -> Device:
    """Return the first CUDA device, or the CPU if there is none."""
    import torch

    return Device("cuda", 0) if torch.cuda.is_available() else Device("cpu")


def first_devices(device: Device, count: int) -> tuple[Device, ...]:
    """Return the first devices of a kind. All processes on a CPU have the same."""
    if device.kind == "cpu":
        return (device,) * count
    return tuple(Device(device.kind, index) for index in range(count))


def torch_device(device: Device) -> torch.device:
    """Return torch's device. Raise `ConfigError` if it does not exist."""
    import torch

    if device.kind == "cpu":
        return torch.device("cpu")
    index = device.index or 0
    if index >= torch.cuda.device_count():
        available = f"torch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices"
        if torch.version.cuda is None and torch.version.hip is None:
            available = (
                f"torch {torch.__version__} is a build for CPUs; install one for your GPU, as "
                "https://pytorch.org/get-started/locally says"
            )
        raise ConfigError(f"--devices cuda:{index}: {available}")
    return torch.device("cuda", index)


def supports_triton(device: torch.device) -> bool:
    """Return whether our Triton kernels run there.

    torch for CUDA installs Triton, which needs Ampere or later.
    """
    import torch

    return find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (8, 0)


def check_quantization(method: str | None, dtype: str, device: torch.device) -> None:
    """Raise `ConfigError` if the device or the dtype does not allow the quantization. Call before loading."""
    if method is None or method == "none":
        return
    if device.type == "cuda":
        _check_cuda(method, device)
    elif method == "fp8":
        raise ConfigError(
            f"--quantization fp8 needs a cuda device of {_capability_text('fp8')}, not a {device}"
        )
    elif dtype not in ("auto", "float32"):
        raise ConfigError(f"--quantization {method} computes in float32 on a cpu, not in --dtype {dtype}")


def check_memory(size: int, what: str, device: torch.device) -> None:
    """Raise `ConfigError` if a CPU has less memory left than ``size`` bytes. On CUDA, allocation fails."""
    if device.type == "cpu" and size > (available := _available_memory()):
        raise ConfigError(
            f"{what}: {size >> 20} MiB do not fit into memory, of which {available >> 20} MiB are free"
        )


def check_fits(weights: int, cache: int, form: str, device: torch.device) -> None:
    """Raise `ConfigError` if a device has less memory left than ``weights`` + ``cache`` bytes.

    ``form`` says in which form the weights are served.
    """
    available = free_memory(device)
    if weights + cache > available:
        raise ConfigError(
            f"the model does not fit into the memory of {device}: {_gib(weights)} of weights ({form}) and "
            f"{_gib(cache)} of KV cache for {MIN_CACHE_TOKENS} tokens, of {_gib(available)} free; choose a "
            "smaller model, or one that is quantized"
        )


def free_memory(device: torch.device) -> int:
    """Return the number of bytes that are free on a device."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return _available_memory()


@contextmanager
def out_of_memory(message: str) -> Generator[None]:
    """Raise `ModelError` with this message if the memory of a device is exhausted.

    On CUDA torch raises its `OutOfMemoryError`; the allocator of a CPU raises a plain `RuntimeError`.
    """
    import torch

    try:
        yield
    except MemoryError as error:
        raise ModelError(message) from error
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise ModelError(message) from error
        raise


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def kv_cache_budget(device: torch.device, engines: int = 1) -> int:
    """Return the number of bytes that the KV cache of one engine may take, once the weights are loaded.

    ``engines`` is the number of engines that share the memory.
    """
    free = free_memory(device) / engines
    return int(free * _CUDA_SHARE) if device.type == "cuda" else min(_CPU_CAP, int(free * _CPU_SHARE))


def num_threads(engines: int) -> int:
    """Return the number of threads of one engine on the CPU, of ``engines`` that share the cores."""
    import torch

    return max(min(physical_cores(), torch.get_num_threads()) // engines, 1)


def physical_cores() -> int:
    """Return the number of cores that this process may use, of its CPUs and of the time of its cgroup.

    Two threads of one core are not faster than one.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return min(len(first_threads(os.sched_getaffinity(0))), _cpu_limit())


def _cpu_limit() -> int:
    """Return how many CPUs the limit of a container allows at once, which may be more than there are."""
    quota, period = (*_read("/sys/fs/cgroup/cpu.max").split(), "", "")[:2]
    if not quota:  # cgroup 1
        quota, period = (_read(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        return max(1, int(quota) // int(period))
    return sys.maxsize


def _check_cuda(method: str, device: torch.device) -> None:
    import torch

    capability = torch.cuda.get_device_capability(device)
    if capability < _CAPABILITY[method]:
        name, has = torch.cuda.get_device_name(device), ".".join(map(str, capability))
        raise ConfigError(
            f"--quantization {method} needs a cuda device of {_capability_text(method)}; "
            f"{device} ({name}) has {has}"
        )
    if not supports_triton(device):
        raise ConfigError(f"--quantization {method} on {device} needs Triton: pip install triton")


def _capability_text(method: str) -> str:
    return "compute capability {}.{} or later".format(*_CAPABILITY[method])


def _available_memory() -> int:
    """Return the free memory of the machine (`/proc/meminfo`), or of the container (cgroup 2) if less.

    The pages of files that a container has read count as used, but the system takes them when it needs them.
    """
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
    if limit.isdecimal() and used.isdecimal():
        files = re.search(r"^inactive_file (\d+)$", _read("/sys/fs/cgroup/memory.stat"), re.MULTILINE)
        available = min(available, int(limit) - int(used) + int(files[1] if files else 0))
    return available


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
