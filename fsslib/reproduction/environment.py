"""What a number was made with: package versions, the state of the code, the device. For records and bug reports."""

import contextlib
import importlib.metadata
import itertools
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsslib
from fsslib import paths

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pillow", "matplotlib", "pydantic", "papermill", "nbval")


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str | None]:
    """Versions by name, Python's and fsslib's first; None for what is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "fsslib": fsslib.__version__}
    for name in names:
        versions[name] = None
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def git_state() -> dict[str, str | bool] | None:
    """Commit and dirty flag of the checkout fsslib runs from; None outside of one.

    Dirty is a changed or untracked file, but for those in results/, which a plan rewrites after each of its runs.
    """
    root = paths.PACKAGE.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        # An installed package may lie inside somebody else's repository, whose commit says nothing.
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", ".", ":!results"))}
    except (OSError, subprocess.SubprocessError):
        return None


def told(file: Path | str) -> str:
    """What Linux tells in one of its files below /proc and /sys; nothing elsewhere."""
    with contextlib.suppress(OSError):
        return Path(file).read_text(encoding="utf-8")
    return ""


def cpu_name() -> str:
    """The processor's own name where the system tells it."""
    found = re.search(r"^model name\s*:\s*(.*)$", told("/proc/cpuinfo"), re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def cpu_cores(system: Path = Path("/")) -> int:
    """Cores this process may use, which in a container or a batch job are fewer than the machine has.

    Both what it is bound to and what time it is granted count: half a core is one, one and a half are two. `system` is
    where Linux shows its control groups.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([bound, *(max(1, math.ceil(share)) for share in _granted(system))])


def _granted(system: Path) -> Iterator[float]:
    """The limits, in cores, of this process's control group (version 2) and of those it lies in."""
    for line in told(system / "proc/self/cgroup").splitlines():
        number, _, group = line.split(":", 2)
        # From the top down: a container may know its group by the name the host has for it, which leads nowhere.
        folders = itertools.accumulate(group.strip("/").split("/"), Path.joinpath, initial=system / "sys/fs/cgroup")
        for folder in folders if number == "0" else ():
            limit = told(folder / "cpu.max").split()
            if len(limit) == 2 and limit[0] != "max":
                yield int(limit[0]) / int(limit[1])


def choose_device(wanted: str) -> str:
    """The device's name for torch; "auto" is a GPU if there is one. Raises ValueError when one is wanted in vain."""
    if wanted == "cpu" or (wanted == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch can use no GPU here. Take device auto or cpu; see `fsslib doctor`.")
    return "cuda" if torch.cuda.is_available() else "cpu"


def _may_have_gpu() -> bool:
    """Whether torch, which takes seconds to import, could find a GPU: on Linux a driver shows a file."""
    drivers = ("nvidiactl", "nvhost-gpu", "nvgpu", "kfd", "dxg")  # the last: Windows' GPUs seen from its Linux
    return sys.platform != "linux" or any(Path("/dev", name).exists() for name in drivers)


def device_name(device: str) -> str:
    """The name of a torch device's hardware: of "cuda" or "cuda:1" the GPU, else the processor."""
    if not device.startswith("cuda"):
        return cpu_name()
    import torch

    return torch.cuda.get_device_name(device)


def peak_memory_bytes(device: str) -> dict[str, int | None]:
    """The most memory this process has held so far: of the machine, and of the GPU when `device` is one."""
    peak: dict[str, int | None] = {"host": None, "device": None}
    # Not getrusage on Linux: what that reports starts at the size of the process that started this one.
    if found := re.search(r"VmHWM:\s*(\d+) kB", told("/proc/self/status")):
        peak["host"] = 1024 * int(found[1])
    elif sys.platform != "win32":
        import resource

        peak["host"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if device.startswith("cuda"):
        import torch

        peak["device"] = torch.cuda.max_memory_allocated(device)
    return peak
