"""`make gpu`: everything that wants a GPU once, packed into one archive. `--tiny` tries the same on a processor.

python -m tests.gpu                          all parts; 12 minutes, as estimated without a GPU
python -m tests.gpu tests throughput         some of: tests, throughput, plan, real
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from fsslib import paths
from fsslib.files import write_atomically
from fsslib.reproduction.plans import Plan
from tests.gpu import throughput

LOG, TABLE = "gpu-tests.log", "gpu_throughput.json"
TESTS = ("tests/gpu/test_device.py", "tests/methods/test_contract.py")
PLANS = {"plan": "gpu", "real": "gpu_real"}
TINY_RUN = {
    "targets": [],
    "steps": 2,
    "batch_size": 2,
    "image_size": 32,
    "episodes": 2,
    "dtype": "bfloat16",
    "device": "cpu",
}
KEPT = ("result.json", "metrics.csv", "run-config.yaml", "runner.log", "*.ipynb", "counts-*.npz")
"""Of a run's folder; its checkpoint stays."""


def run_tests(out: Path, tiny: bool) -> None:
    """The tests that can be asked to compute elsewhere, on CUDA and there without TF32's short products."""
    chosen = [f"{TESTS[0]}::test_blocks_and_losses_are_those_of_the_processor"] if tiny else TESTS
    environment = os.environ | {"NVIDIA_TF32_OVERRIDE": "0", "FSSLIB_TEST_DEVICE": "cpu" if tiny else "cuda"}
    command = [sys.executable, "-m", "pytest", "-q", "--durations=5", *chosen]
    done = subprocess.run(
        command, cwd=paths.project_root(), env=environment, capture_output=True, text=True, check=False
    )
    (out / LOG).write_text(done.stdout + done.stderr, encoding="utf-8")
    print("\n".join(done.stdout.splitlines()[-3:]), flush=True)
    if done.returncode:
        raise RuntimeError(f"tests failed; see {out / LOG}")


def measure(out: Path, tiny: bool) -> None:
    table = throughput.report("cpu" if tiny else "cuda", tiny=tiny)
    write_atomically(out / TABLE, json.dumps(table, indent=1) + "\n")


def plan_of(part: str, out: Path, tiny: bool) -> Path | str:
    """The plan's name, or in place of it a file with one run that takes seconds."""
    if not tiny:
        return PLANS[part]
    file, run = out / f"tiny_{part}.yaml", {"label": "tiny", "output": str(out / f"tiny_{part}"), **TINY_RUN}
    file.write_text(yaml.safe_dump({"name": file.stem, "runs": [run]}), encoding="utf-8")
    return file


def reproduce(part: str) -> Callable[[Path, bool], None]:
    def work(out: Path, tiny: bool) -> None:
        command = [sys.executable, "-m", "fsslib.cli", "reproduce", str(plan_of(part, out, tiny))]
        if subprocess.run(command, cwd=paths.project_root(), check=False).returncode:
            raise RuntimeError("some runs failed; their names and notebooks are above")

    return work


PARTS: dict[str, Callable[[Path, bool], None]] = {
    "tests": run_tests,
    "throughput": measure,
    "plan": reproduce("plan"),
    "real": reproduce("real"),
}


def _possible(tiny: bool) -> list[str]:
    """All parts, or all but the one that wants real data where there are none."""
    there = tiny or (paths.data_root() / "VOCdevkit").is_dir()
    if not there:
        print(f"== real is left out: no real data in {paths.data_root()}, which FSSLIB_DATA names", flush=True)
    return [part for part in PARTS if part != "real" or there]


def pack(out: Path, tiny: bool) -> Path:
    """Everything that was written, of all calls so far, in one archive."""
    root, files = paths.project_root(), [out / LOG, out / TABLE]
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; none: all")
    parser.add_argument("--tiny", action="store_true", help="on the processor, as little as possible")
    given = parser.parse_args(arguments)
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if not given.tiny and not torch.cuda.is_available():
        print(
            f"make gpu wants a GPU that torch can use: torch {torch.__version__} finds none here. It needs an NVIDIA "
            "driver (nvidia-smi shows one) and a build of torch for CUDA; docs/gpu.md has the wheels. `python -m "
            "tests.gpu --tiny` tries the same on the processor.",
            file=sys.stderr,
        )
        return 2
    out = Path(os.environ.get("OUT") or paths.project_root() / "report").absolute()
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for part in given.parts or _possible(given.tiny):
        print(f"== {part}", flush=True)
        start = time.perf_counter()
        try:
            PARTS[part](out, given.tiny)
        except Exception as error:  # the other parts are worth having
            failed.append(f"{part}: {type(error).__name__}: {error}")
        torch.cuda.empty_cache()  # the next part's processes want the memory that this one no longer uses
        print(f"== {part} took {time.perf_counter() - start:.0f} s", flush=True)
    print(pack(out, given.tiny))
    print("\n".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
