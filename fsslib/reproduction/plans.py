"""Plans: which runs make a table. A YAML file of small matrices, expanded to run configs, run, and gathered in one
file.

    name: sg_one_toy
    runs:
      - {label: SG-One, method: sg_one, fold: [0, 1, 2, 3], seed: [0, 1, 2]}

A list stands for its elements, and every combination is a run. `label` names the row of the table; all else are
parameters of a run. `tables`, if there is such an entry, describes the tables of the results (`tables.py`). Snakemake
carries the runs out (`Snakefile`), here or on a cluster. A gathered file grows as runs end, so that nothing is lost
when a plan is stopped.
"""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from fsslib import paths
from fsslib.files import write_atomically
from fsslib.reproduction import scheduler
from fsslib.reproduction.config import ConfigError, RunConfig, parse
from fsslib.reproduction.environment import cpu_cores
from fsslib.reproduction.result import FILE, read_result

PARAMETERS = "plan.json"
LOG = "runner.log"
PARTING = 90.0
"""Seconds that runs have to save a checkpoint and to end when Snakemake was killed."""

Run = tuple[str, RunConfig]
"""The label of a table's row, and a run of it."""


@dataclass(frozen=True)
class Plan:
    """A name, runs with the label of the table row they belong to, and descriptions of the tables."""

    name: str
    runs: tuple[Run, ...]
    tables: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def load(cls, name: str | Path) -> "Plan":
        """A plan of the package by name, or a YAML file by path. Raises ConfigError saying what is wrong, and where."""
        known = shipped_plans()
        path = known.get(str(name), Path(name))
        if not path.is_file():
            raise ConfigError(f"no plan {str(name)!r}: give a YAML file, or one of {', '.join(known)}")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or set(content) | {"tables"} != {"name", "runs", "tables"}:
            raise ConfigError(f"{path}: a plan has the entries name and runs, and may have tables")
        runs = []
        for matrix in content["runs"]:
            try:
                label = matrix.pop("label")
                runs += [(label, parse(values)) for values in expand(matrix)]
            except (AttributeError, KeyError):
                raise ConfigError(f"{path}: each of the runs is a mapping with a label; found {matrix!r}") from None
            except ConfigError as error:
                raise ConfigError(f"{path}, runs labelled {label!r}: {error}") from error
        folders: dict[Path, RunConfig] = {}
        for _, config in runs:
            if folders.setdefault(config.folder, config).sha256 != config.sha256:
                raise ConfigError(
                    f"{path}: different runs would write to {config.folder}. Leave `output` out: each run then has a "
                    "folder of its own."
                )
        return cls(content["name"], tuple(runs), tuple(content.get("tables") or ()))

    def order(self) -> list[Run]:
        """Every run once, the first seeds of all rows before the second: a plan that was stopped holds whole seeds."""
        once = {run[1].folder: run for run in reversed(self.runs)}
        return sorted((run for run in self.runs if once[run[1].folder] is run), key=lambda run: run[1].seed)

    def at(self, index: int) -> RunConfig:
        """The run with this number in `order`, from 0, for the tasks of a job array. Raises ConfigError beyond."""
        runs = self.order()
        if not 0 <= index < len(runs):
            raise ConfigError(f"{self.name} has the runs 0 to {len(runs) - 1}; found index {index}")
        return runs[index][1]

    @property
    def results_file(self) -> Path:
        return paths.project_root() / "results" / f"{self.name}.json"


def shipped_plans() -> dict[str, Path]:
    """The files of the package's plans, by name."""
    folder = Path(__file__).with_name("plan_files")
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def expand(matrix: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of a matrix's lists; `targets` is a list by nature and stands for itself."""
    axes = [value if isinstance(value, list) and name != "targets" else [value] for name, value in matrix.items()]
    for values in itertools.product(*axes):
        yield dict(zip(matrix, values))


def carry_out(
    plan: Plan, *, jobs: int | None = None, cores: int | None = None, profile: Path | str | None = None
) -> list[str]:
    """Run what is not finished through Snakemake and return what failed, one text for each run.

    On this machine: `jobs` runs at a time (1 unless told) share its `cores` (all that this process may use), or have
    OMP_NUM_THREADS each where that is set, and take a GPU each where there are any. With a Snakemake `profile`, a
    folder, its executor and its resources are used instead, and `jobs` only if given. A run that fails is tried once
    more. The results file is rewritten as runs end, seeds in their order. An interrupt reaches the runs, which save
    checkpoints. Raises ConfigError when the folder of a run holds the result of another, and when Snakemake could start
    no run at all.
    """
    from fsslib.reproduction.run import RunError, check_belongs_to

    waiting = _unfinished(plan)
    try:
        for _, config in waiting:
            if (config.folder / FILE).exists():  # Snakemake would take it for this run's
                check_belongs_to(config.folder, config)
    except RunError as error:
        raise ConfigError(str(error)) from error
    left = list(waiting)
    try:
        if waiting:
            with _snakemake(plan, waiting, jobs, cores, profile) as process:
                while process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=1)
                    for label, config in [run for run in left if recorded(run[1])]:
                        left.remove((label, config))
                        print(f"{len(waiting) - len(left)}/{len(waiting)}  {label}  {config.run_id}", flush=True)
                        gather(plan)
    finally:
        gather(plan)
    left = _unfinished(plan)
    if left and not any((config.folder / LOG).exists() for _, config in waiting):
        raise ConfigError(f"Snakemake started no run. Its last words:\n{_last_lines(_notes(plan) / LOG, 15)}")
    return [f"{label}, {config.run_id}: {_what_became_of(config, plan)}" for label, config in left]


def _what_became_of(config: RunConfig, plan: Plan) -> str:
    """The last words of a run without a result; where it left none, whether it began, and what the next call does."""
    from fsslib.reproduction.run import goes_on

    log = config.folder / LOG
    began = f"it ended without a word; see {log.parent}" if log.exists() else "it was not started"
    return _last_lines(log, 3) or f"{began}. The next call {goes_on(config.folder)}. Snakemake: {_notes(plan) / LOG}"


def recorded(config: RunConfig) -> dict[str, Any] | None:
    """The record of a run that is finished on this machine; None where there is none, or another run's."""
    with contextlib.suppress(OSError, ValueError):
        result = read_result(config.folder / FILE)
        if result.get("config_sha256") == config.sha256:
            return result
    return None


def _unfinished(plan: Plan) -> list[Run]:
    return [run for run in plan.order() if not recorded(run[1])]


@contextlib.contextmanager
def _snakemake(
    plan: Plan, waiting: Sequence[Run], jobs: int | None, cores: int | None, profile: Path | str | None
) -> Iterator[subprocess.Popen]:
    """Snakemake at work on a plan, in a process group of its own; what interrupts this process interrupts the group."""
    from fsslib.reproduction.run import sigterm_interrupts

    root, gpus, jobs_here = paths.project_root(), _gpus(), jobs or 1
    cores_here = cores or cpu_cores()
    runs = {}
    for number, (_, config) in enumerate(reversed(plan.order())):
        folder = config.folder
        short = folder.relative_to(root / "runs") if folder.is_relative_to(root / "runs") else folder
        wants_gpu = config.device == "cuda" or (config.device == "auto" and gpus and not profile)
        # Where there is no GPU, a run that wants one is to say so itself.
        gpu = int(bool(wants_gpu and (gpus or profile)))
        runs[str(short)] = {"parameters": str(folder / PARAMETERS), "priority": number, "gpu": gpu}
    for _, config in waiting:
        (config.folder / LOG).unlink(missing_ok=True)
        write_atomically(config.folder / PARAMETERS, json.dumps(config.model_dump(mode="json"), indent=1))
    told = re.match(r"\s*([1-9]\d*)", os.environ.get("OMP_NUM_THREADS", ""))
    threads = int(told[1]) if told else 1 if profile else max(1, cores_here // jobs_here)
    content = {"runs": runs, "threads": threads, "root": str(root)}
    write_atomically(_notes(plan) / "snakemake.json", json.dumps(content, indent=1))

    snakefile = resources.files("fsslib.reproduction") / "Snakefile"
    command = [sys.executable, "-m", "fsslib.reproduction.scheduler", "--snakefile", str(snakefile)]
    command += ["--directory", str(root / "runs"), "--configfile", str(_notes(plan) / "snakemake.json")]
    # A result.json is whole whenever it is there, and every run has its own lock: what Snakemake would do about half
    # files, changed code and its own lock stays off.
    command += ["--keep-going", "--rerun-triggers", "mtime", "--ignore-incomplete", "--keep-incomplete", "--nolock"]
    command += ["--drop-metadata", "--scheduler", "greedy", "--nocolor"]
    if profile:
        command += ["--profile", str(Path(profile).absolute()), *(["--jobs", str(jobs)] if jobs else [])]
    else:
        command += ["--cores", str(threads * jobs_here), "--resources", f"gpu={len(gpus)}"]
    environment = os.environ | {scheduler.PARENT: str(os.getpid())}
    if gpus and not profile:
        environment["FSSLIB_GPUS"] = ",".join(gpus)
    with sigterm_interrupts(), (_notes(plan) / LOG).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=root, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None or process.returncode < 0:  # else it has ended, and all runs with it
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGINT)
                    process.wait()
                    # A killed Snakemake does not wait for the runs, which are saving what they have.
                    until = time.monotonic() + PARTING
                    while time.monotonic() < until:
                        os.killpg(process.pid, 0)
                        time.sleep(0.1)
                process.wait()


def _notes(plan: Plan) -> Path:
    """Where Snakemake's input and words go."""
    return paths.project_root() / "runs" / ".plans" / plan.name


def _gpus() -> list[str]:
    """The GPUs of this machine that may be used, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def _last_lines(path: Path, count: int) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return "\n".join([line for line in lines if line.strip()][-count:])


def gather(plan: Plan) -> Path:
    """Write the finished runs of a plan to `results/NAME.json`, one row a run, and return the path.

    Rows whose run folder is not on this machine are kept from the file that is there, as long as the plan still holds
    their parameters, so a plan may be completed on several machines.
    """
    kept = {row["config_sha256"]: row for row in read_rows(plan.results_file)} if plan.results_file.exists() else {}
    rows = []
    for label, config in plan.runs:
        if result := recorded(config):
            rows.append({"label": label} | _row(result))
        elif config.sha256 in kept:
            rows.append(kept[config.sha256] | {"label": label})
    content = {"schema_version": 1, "plan": plan.name, "command": f"fsslib reproduce {plan.name}", "runs": rows}
    write_atomically(plan.results_file, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return plan.results_file


def read_rows(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a results file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))["runs"]


def _row(result: dict[str, Any]) -> dict[str, Any]:
    """What a table or a test may need of a run; the counts of every episode stay in its folder, named by hash."""
    return {
        "config_sha256": result["config_sha256"],
        "config": result["config"],
        "classes": result["classes"],
        "scores": result["scores"],
        "floors": result["floors"],
        "training": {key: result["training"][key] for key in ("steps", "seconds", "final")},
        "weights": result["weights"],
        "seconds": result["seconds"],
        "peak_memory_bytes": result["peak_memory_bytes"],
        "environment": result["environment"],
    } | ({"best": result["best"]} if result.get("best") else {})
