"""What a bug report needs, and what is missing on this machine: versions, device, data sets, weights."""

import importlib
import platform
from pathlib import Path

from fsslib import paths
from fsslib.data import catalogue
from fsslib.reproduction import environment

SAME_INDEX = """torch and torchvision must come from one index, as a pair: a torch for CPU beside a torchvision for CUDA
fails at import. Install both together from the default index, at the versions the tests passed with:
    pip uninstall -y torch torchvision
    pip install -c constraints.txt torch torchvision"""


def main() -> int:
    """Print the report and return the exit code: 1 when torch and torchvision do not work together."""
    print("Versions")
    for name, version in environment.package_versions().items():
        print(f"  {name:12} {version or 'not installed'}")
    print(f"\nMachine\n  system       {platform.platform()}")
    print(f"  processor    {environment.cpu_name()}, {environment.cpu_cores()} cores, {_bfloat16_instructions()}")
    if problem := torch_problem():
        print(f"\nBroken: {problem}\n{SAME_INDEX}")
        return 1
    print(f"  GPU          {gpu_name()}")
    print(f"\n{catalogue.report()}\n\n{weights_report()}")
    return 0


def torch_problem() -> str | None:
    """Why torch or torchvision cannot be used here, or None when both import."""
    for name in ("torch", "torchvision"):
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken pair shows as ImportError, OSError, RuntimeError or AttributeError
            return f"importing {name} fails with {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def gpu_name() -> str:
    """Name and memory of each GPU that torch can use, and whether it computes in bfloat16."""
    import torch

    if not torch.cuda.is_available():
        built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
        return f"none that torch can use (it is built for {built_for})"
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    bfloat16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
    return "; ".join(f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus) + f"; {bfloat16}"


def weights_report() -> str:
    """Files of pretrained weights where backbones look for them: below the data sets, and in torch's own cache."""
    import torch

    lines = ["Weights"]
    for folder in (paths.data_root() / "weights", Path(torch.hub.get_dir()) / "checkpoints"):
        files = sorted(path for path in folder.glob("*.pt*") if path.is_file())
        lines += [f"  {path.name}  ({path.stat().st_size / 2**20:.0f} MiB in {folder})" for path in files]
    if len(lines) == 1:
        lines.append("  none found: weights=imagenet downloads them, weights=FILE reads a state dict; tiny needs none")
    return "\n".join(lines)


def _bfloat16_instructions() -> str:
    flags = environment.told("/proc/cpuinfo").split()
    has = "" if {"avx512_bf16", "amx_bf16", "bf16"} & set(flags) else "no "
    return f"{has}bfloat16 instructions" if flags else "bfloat16 instructions unknown"
