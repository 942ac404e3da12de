"""`make gpu`: what wants a GPU once, within a budget of minutes, in one archive. `--tiny` tries it on a processor.

python -m tests.gpu --minutes 8              every part, stopped at its share with what it has
python -m tests.gpu tests throughput         some of: tests, throughput, plan, real
python -m tests.gpu --carry gpu.tgz          sources and small real data for a machine without a network
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import torch
import yaml

from fsslib import paths
from fsslib.reproduction.plans import Plan

SHARES = {"tests": 2, "throughput": 2, "plan": 3, "real": 3}
"""The parts in their order, and how they share the time; what one leaves goes to those behind it."""

PARTING = 15.0
"""Seconds of the budget for the last part to save what it has, and for packing; any part has as many to end."""

TABLE = "gpu_throughput.json"
TESTS = ("tests/gpu/test_device.py", "tests/methods/test_contract.py")
PLANS = {"plan": "gpu", "real": "gpu_real"}
TINY_RUN = {"targets": [], "steps": 2, "batch_size": 2, "image_size": 32, "episodes": 2, "device": "cpu"}
KEPT = ("result.json", "metrics.csv", "run-config.yaml", "runner.log", "*.ipynb", "counts-*.npz")
"""Of a run's folder; its checkpoint stays."""

CARRIED = ("CamVid", "MagneticTile", "VOCdevkit", "coco", "weights/resnet18_imagenet1k_v1_to_layer3_bnfolded_fp16.pth")
"""What the plan gpu_real reads below the data root."""


def plan_of(part: str, out: Path, tiny: bool) -> Path | str:
    """The plan's name, or in place of it a file with one run that takes seconds."""
    if not tiny:
        return PLANS[part]
    file, run = out / f"tiny_{part}.yaml", {"label": "tiny", "output": str(out / f"tiny_{part}"), **TINY_RUN}
    file.write_text(yaml.safe_dump({"name": file.stem, "runs": [run]}), encoding="utf-8")
    return file


def command_of(part: str, out: Path, tiny: bool) -> list[str]:
    """The arguments of Python for a part."""
    if part in PLANS:
        return ["-m", "fsslib.cli", "reproduce", str(plan_of(part, out, tiny))]
    if part == "throughput":
        return ["-m", "tests.gpu.throughput", str(out / TABLE), *(["--tiny"] if tiny else [])]
    chosen = [f"{TESTS[0]}::test_blocks_and_losses_are_those_of_the_processor"] if tiny else TESTS
    return ["-m", "pytest", "-q", "--durations=5", *chosen]


def work(part: str, out: Path, tiny: bool, seconds: float) -> str:
    """Carry out a part for so many seconds, then interrupt it as a user would; return what became of it.

    Tests compute on CUDA without TF32's short products.
    """
    log, more = out / f"gpu-{part}.log", {"NVIDIA_TF32_OVERRIDE": "0"} if part == "tests" else {}
    where = {"cwd": paths.PACKAGE.parent, "env": os.environ | {"FSSLIB_TEST_DEVICE": "cpu" if tiny else "cuda"} | more}
    command = [sys.executable, *command_of(part, out, tiny)]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, **where) as process:
        try:
            ended = "done" if process.wait(seconds) == 0 else "failed"
        except subprocess.TimeoutExpired:
            ended = "stopped at its share"
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PARTING)
            process.kill()
    lines = log.read_text(encoding="utf-8").splitlines()
    print("\n".join(lines[-12:]), flush=True)
    folders = [config.folder for _, config in Plan.load(plan_of(part, out, tiny)).runs] if part in PLANS else []
    broken = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if broken or any(path for folder in folders for path in folder.glob("*.failed.ipynb")):
        ended = "failed"
    runs = (
        f", {sum((f / 'result.json').exists() for f in folders)} of {len(folders)} runs have ended" if folders else ""
    )
    return ended + runs


def pack(out: Path, tiny: bool) -> Path:
    """Everything that was written, of all calls so far, in one archive."""
    root, files = paths.project_root(), [*(out / f"gpu-{part}.log" for part in SHARES), out / TABLE]
    plans = [out / f"tiny_{part}.yaml" for part in PLANS] if tiny else list(PLANS.values())
    for plan in (Plan.load(plan) for plan in plans if not tiny or plan.exists()):
        files += [file for _, config in plan.runs for name in KEPT for file in sorted(config.folder.glob(name))]
        if plan.results_file.exists():
            # A trial leaves nothing among the results.
            files.append(plan.results_file.rename(out / plan.results_file.name) if tiny else plan.results_file)
    with tarfile.open(out / "results-gpu.tgz", "w:gz") as archive:
        for file in filter(Path.exists, files):
            archive.add(file, file.relative_to(out if file.is_relative_to(out) else root))
    return out / "results-gpu.tgz"


def carry(file: Path) -> None:
    """What all parts need beside an installed torch, in one archive: unpacked it is a checkout that finds its data."""
    listing = ["git", "ls-files", "-z", ".", ":!notebooks/[0-8]*", ":!notebooks/solutions"]  # lessons need no GPU
    listed = subprocess.run(listing, cwd=paths.PACKAGE.parent, capture_output=True, text=True, check=True).stdout
    with tarfile.open(file, "w:gz") as archive:
        for name in filter(None, listed.split("\0")):
            archive.add(paths.PACKAGE.parent / name, Path("fsslib", name))
        for name in CARRIED:
            archive.add(paths.data_root() / name, Path("fsslib", "data", "downloads", name))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(SHARES)}; none: all")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--tiny", action="store_true", help="on the processor, as little as possible")
    parser.add_argument("--carry", type=Path, metavar="FILE", help="write what another machine needs, and stop")
    given = parser.parse_args(arguments)
    if unknown := [part for part in given.parts if part not in SHARES]:
        parser.error(f"unknown part {unknown[0]!r}; there are {', '.join(SHARES)}")
    if given.carry:
        carry(given.carry)
        print(f"{given.carry}, {given.carry.stat().st_size / 1e6:.1f} MB")
        return 0
    if not given.tiny and not torch.cuda.is_available():
        print(
            f"make gpu wants a GPU that torch can use: torch {torch.__version__} finds none here. It needs an NVIDIA "
            "driver (nvidia-smi shows one) and a build of torch for CUDA; docs/gpu.md has the wheels. `python -m "
            "tests.gpu --tiny` tries the same on the processor.",
            file=sys.stderr,
        )
        return 2
    start, told = time.monotonic(), {}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    out = Path(os.environ.get("OUT") or paths.project_root() / "report").absolute()
    out.mkdir(parents=True, exist_ok=True)
    parts = given.parts or list(SHARES)
    if not given.parts and not given.tiny and not (paths.data_root() / "VOCdevkit").is_dir():
        parts.remove("real")
        print(f"== real is left out: no real data in {paths.data_root()}, which FSSLIB_DATA names", flush=True)
    for number, part in enumerate(parts):
        begin = time.monotonic()
        left = max(0.0, start + 60 * given.minutes - PARTING - begin)
        share = left * SHARES[part] / sum(SHARES[other] for other in parts[number:])
        print(f"== {part}, {share:.0f} s at most", flush=True)
        told[part] = f"{work(part, out, given.tiny, share)}; {time.monotonic() - begin:.0f} s"
    print("== all", *(f"{part}: {became}" for part, became in told.items()), sep="\n")
    archive = pack(out, given.tiny)
    print(f"{archive}, {archive.stat().st_size / 1e6:.1f} MB, after {time.monotonic() - start:.0f} s")
    return 1 if any(became.startswith("failed") for became in told.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
