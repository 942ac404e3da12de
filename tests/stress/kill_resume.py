"""Kill runs again and again, and compare what they end in with runs that were left alone: equal to the bit, on a CPU.

    python -m tests.stress.kill_resume                                the rows of the plan `laptop`, 20 kills each
    python -m tests.stress.kill_resume --kills 4 --steps 40 RtD       one row, in short

Each run is killed (-9) soon after it has saved a checkpoint, at a random moment before the next, and in turn in four
ways, of which the last leaves a kernel without a runner, which goes on for a second or two. Then the same call is made
again. A row takes about the run itself twice, and 10 s for every kill. `--results FILE` writes what was found as JSON.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from fsslib import paths
from fsslib.files import write_atomically
from fsslib.reproduction import plans, result
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.environment import package_versions
from fsslib.training.checkpoint import load_checkpoint

ROWS = ("SG-One", "RtD", "PixDA")
WAYS = ("both", "kernel", "both", "runner")


def start(config: RunConfig) -> subprocess.Popen:
    """The process that `fsslib reproduce` would start for this run."""
    parameters = config.folder / plans.PARAMETERS
    parameters.parent.mkdir(parents=True, exist_ok=True)
    parameters.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "fsslib.cli", "run", "--wait", str(parameters)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (config.folder / plans.LOG).open("a", encoding="utf-8") as log:
        return subprocess.Popen(command, cwd=paths.project_root(), env=environment, stdout=log, stderr=log)


def kill(runner: subprocess.Popen, way: str) -> bool:
    """Kill -9 the runner, its kernel or both; False, and nothing killed, where there are not both."""
    try:
        process = psutil.Process(runner.pid)
        kernels = process.children(recursive=True)
        if not kernels or runner.poll() is not None:
            return False
        for one in {"runner": [process], "kernel": kernels, "both": [process, *kernels]}[way]:
            one.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    return True


def run_with_kills(config: RunConfig, kills: int = 0, between: float = 0) -> list[int]:
    """Carry a run to its end through `kills` kills; the steps that the checkpoint held at each of them.

    `between` are the seconds between two checkpoints.
    """
    chance = random.Random(0)
    checkpoint, held = config.folder / result.CHECKPOINT, []
    while not (config.folder / result.FILE).exists():
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        runner, moment = start(config), None
        while runner.poll() is None:
            time.sleep(0.005)
            saved = checkpoint.exists() and checkpoint.stat().st_mtime_ns > before
            if moment is None and saved and len(held) < kills:
                moment = time.monotonic() + between * chance.random()
            if moment is not None and time.monotonic() > moment:
                if kill(runner, WAYS[len(held) % len(WAYS)]):
                    held.append(len(load_checkpoint(checkpoint, identity=config.sha256)["history"]))
                    moment = float("inf")
                else:  # It was the checkpoint of a kernel whose runner was killed; the next will be this runner's.
                    before, moment = checkpoint.stat().st_mtime_ns, None
        failed = runner.returncode not in (0, -signal.SIGKILL)
        if failed and "kernel died" not in (config.folder / plans.LOG).read_text(encoding="utf-8"):
            raise SystemExit(f"The run failed by itself; see {config.folder / plans.LOG}")
    return held


def differences(one: RunConfig, other: RunConfig) -> list[str]:
    """Where two finished runs differ: in a weight, an optimiser, a loss of any step, a score."""
    first, second = (
        load_checkpoint(config.folder / result.CHECKPOINT, identity=config.sha256) for config in (one, other)
    )
    found = [name for name in ("method", "optimizers", "rng", "history", "best") if not same(first[name], second[name])]
    results = [result.read_result(config.folder / result.FILE) for config in (one, other)]
    found += [name for name in ("scores", "best", "floors", "weights") if results[0][name] != results[1][name]]
    return found


def same(one, other) -> bool:
    """Whether two pieces of a checkpoint are equal, tensors to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other))
    return bool((one == other).all()) if hasattr(one, "shape") else one == other


def compare(config: RunConfig, folder: Path, kills: int) -> dict[str, Any]:
    """A run left alone and the same run with so many kills, each in a folder of its own: what became of them."""
    alone, killed = (
        config.model_copy(update={"device": "cpu", "output": str(folder / name)}) for name in ("alone", "killed")
    )
    begin = time.monotonic()
    run_with_kills(alone)
    middle = time.monotonic()
    training = result.read_result(alone.folder / result.FILE)["training"]["seconds"]
    held = run_with_kills(killed, kills, training * config.checkpoint_every / config.steps)
    return {
        "steps": config.steps,
        "checkpoint_every": config.checkpoint_every,
        "kills_on_the_way": sum(steps < config.steps for steps in held),
        "steps_saved_at_kills": held,
        "seconds_alone": round(middle - begin, 1),
        "seconds_killed": round(time.monotonic() - middle, 1),
        "differs_in": differences(alone, killed),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", default=ROWS, help="rows of the plan laptop")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, help="training steps; none: the plan's own")
    parser.add_argument("--episodes", type=int, default=50, help="test episodes: the weights are what is compared")
    parser.add_argument("--results", type=Path, help="JSON file for what was found")
    options, found = parser.parse_args(), {}
    for row in options.rows:
        config = next(config for label, config in plans.Plan.load("laptop").order() if label == row)
        steps = options.steps or config.steps
        # Four times as many checkpoints as kills, so that a run is still on its way at the last of them.
        every = max(1, steps // (4 * options.kills))
        short = config.model_copy(update={"steps": steps, "checkpoint_every": every, "episodes": options.episodes})
        folder = Path(tempfile.mkdtemp(prefix="kill-resume-"))
        found[row] = compare(short, folder, options.kills)
        print(f"{row}: {found[row]}", flush=True)
        if not found[row]["differs_in"]:
            shutil.rmtree(folder)
        else:
            print(f"Both are kept in {folder}")
    if options.results:
        content = {"command": "python -m tests.stress.kill_resume", "versions": package_versions(), "rows": found}
        write_atomically(options.results, json.dumps({"schema_version": 1} | content, indent=1) + "\n")
    return int(any(one["differs_in"] or one["kills_on_the_way"] < options.kills for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
