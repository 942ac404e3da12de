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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import yaml

from fsslib import paths
from fsslib.files import write_atomically
from fsslib.reproduction import scheduler
from fsslib.reproduction.config import ConfigError, RunConfig, load, parse
from fsslib.reproduction.environment import choose_device, cpu_cores
from fsslib.reproduction.result import FILE, read_result

PARAMETERS = "plan.yaml"
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
        content = load(path)
        if content.keys() | {"tables"} != {"name", "runs", "tables"}:
            raise ConfigError(f"{path}: a plan has the entries name and runs, and may have tables")
        runs, folders = [], {}
        for matrix in content["runs"]:
            try:
                label = matrix.pop("label")
                runs += [(label, parse(values)) for values in expand(matrix)]
            except (AttributeError, KeyError):
                raise ConfigError(f"{path}: each of the runs is a mapping with a label; found {matrix!r}") from None
            except ConfigError as error:
                raise ConfigError(f"{path}, runs labelled {label!r}: {error}") from error
        for _, config in runs:
            if folders.setdefault(config.folder, config.sha256) != config.sha256:
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
    def unfinished(self) -> list[Run]:
        """Those without a record on this machine."""
        return [run for run in self.order() if not recorded(run[1])]

    @property
    def results_file(self) -> Path:
        return paths.project_root() / "results" / f"{self.name}.json"

    @property
    def notes(self) -> Path:
        """The folder of Snakemake's input and words."""
        return paths.project_root() / "runs" / ".plans" / self.name


def shipped_plans() -> dict[str, Path]:
    """The files of the package's plans, by name."""
    return {path.stem: path for path in sorted(Path(__file__).with_name("plan_files").glob("*.yaml"))}


def expand(matrix: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of a matrix's lists; `targets` is a list by nature and stands for itself."""
    axes = [value if isinstance(value, list) and name != "targets" else [value] for name, value in matrix.items()]
    return (dict(zip(matrix, values)) for values in itertools.product(*axes))


def recorded(config: RunConfig) -> dict[str, Any] | None:
    """The record of a run that is finished on this machine; None where there is none, or another run's."""
    with contextlib.suppress(OSError, ValueError):
        result = read_result(config.folder / FILE)
        if result.get("config_sha256") == config.sha256:
            return result
    return None


def carry_out(
    plan: Plan, *, jobs: int | None = None, cores: int | None = None, profile: Path | str | None = None
) -> list[str]:
    """Run what is not finished through Snakemake and return what failed, one text for each run.

    On this machine: `jobs` runs at a time (see `at_a_time`) share its `cores` (all that this process may use), or have
    OMP_NUM_THREADS each where that is set, and take a GPU each where there are any. With a Snakemake `profile`, a
    folder, its executor and its resources are used instead, and `jobs` only if given. A run that fails is tried once
    more. The results file is rewritten as runs end, seeds in their order. An interrupt reaches the runs, which save
    checkpoints. Raises ConfigError when the folder of a run holds the result of another, and when Snakemake could start
    no run at all.
    """
    from fsslib.reproduction.run import RunError, check_belongs_to

    waiting = plan.unfinished
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
    left = plan.unfinished
    if left and not any((config.folder / LOG).exists() for _, config in waiting):
        raise ConfigError(f"Snakemake started no run. Its last words:\n{_last_lines(plan.notes / LOG, 15)}")
    return [f"{label}, {config.run_id}: {_what_became_of(config, plan)}" for label, config in left]


def _what_became_of(config: RunConfig, plan: Plan) -> str:
    """The last words of a run without a result; where it left none, whether it began, and what the next call does."""
    from fsslib.reproduction.run import goes_on

    log = config.folder / LOG
    began = f"it ended without a word; see {log.parent}" if log.exists() else "it was not started"
    return _last_lines(log, 3) or f"{began}. The next call {goes_on(config.folder)}. Snakemake: {plan.notes / LOG}"


def _last_lines(path: Path, count: int) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return "\n".join([line for line in lines if line.strip()][-count:])


def at_a_time(jobs: int | None, cores: int | None = None) -> int:
    """`jobs`, or where none are told two runs if there are two cores: small networks hardly gain by a second thread."""
    return jobs or min(2, cores or cpu_cores())


@contextlib.contextmanager
def _snakemake(
    plan: Plan, waiting: Sequence[Run], jobs: int | None, cores: int | None, profile: Path | str | None
) -> Iterator[subprocess.Popen]:
    """Snakemake at work on a plan, in a process group of its own; what interrupts this process interrupts the group."""
    from fsslib.reproduction.run import sigterm_interrupts

    root, gpus, at_once = paths.project_root(), [] if profile else _gpus(), at_a_time(jobs, cores)
    told = re.match(r"\s*([1-9]\d*)", os.environ.get("OMP_NUM_THREADS", ""))
    threads = int(told[1]) if told else 1 if profile else max(1, (cores or cpu_cores()) // at_once)
    runs = {}
    for number, (_, config) in enumerate(reversed(plan.order())):
        folder = config.folder
        short = folder.relative_to(root / "runs") if folder.is_relative_to(root / "runs") else folder
        # Where there is no GPU, a run that wants one is to say so itself.
        gpu = config.device == "cuda" if profile else bool(gpus) and config.device != "cpu"
        # For a run that has ended nothing is made anew.
        weights = [str(config.made_weights)] if config.made_weights and not recorded(config) else []
        how = {"parameters": str(folder / PARAMETERS), "weights": weights}
        runs[str(short)] = how | {"priority": number, "gpu": int(gpu)}
    for _, config in waiting:
        (config.folder / LOG).unlink(missing_ok=True)
        write_atomically(config.folder / PARAMETERS, yaml.safe_dump(config.model_dump(mode="json")))
    given = plan.notes / "snakemake.json"
    write_atomically(given, json.dumps({"runs": runs, "threads": threads, "root": str(root)}))

    command = [sys.executable, "-m", "fsslib.reproduction.scheduler", "--configfile", str(given)]
    command += ["--snakefile", str(Path(__file__).with_name("Snakefile")), "--directory", str(root / "runs")]
    # A result.json is whole whenever it is there, and every run has its own lock: what Snakemake would do about half
    # files, changed code and its own lock stays off.
    command += ["--keep-going", "--rerun-triggers", "mtime", "--ignore-incomplete", "--keep-incomplete", "--nolock"]
    command += ["--drop-metadata", "--scheduler", "greedy", "--nocolor"]
    if profile:
        command += ["--profile", str(Path(profile).absolute()), *(["--jobs", str(jobs)] if jobs else [])]
    else:
        command += ["--cores", str(threads * at_once), "--resources", f"gpu={len(gpus)}"]
    environment = os.environ | {scheduler.PARENT: str(os.getpid())}
    if gpus:
        environment["FSSLIB_GPUS"] = ",".join(gpus)
    with sigterm_interrupts(), (plan.notes / LOG).open("w", encoding="utf-8") as log:
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


def _gpus() -> list[str]:
    """The GPUs of this machine that may be used, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


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


def _row(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a table or a test may need of a run; the counts of every episode stay in its folder, named by hash."""
    unwanted = {"schema_version", "run_id", "at_once", *(() if result.get("best") else ("best",))}
    row = {name: value for name, value in result.items() if name not in unwanted}
    return row | {"training": {name: value for name, value in row["training"].items() if name != "tail"}}


# What a run has in common with another that takes as long, and with one that takes about as long.
_ALIKE = ("method", "data", "backbone", "image_size", "batch_size", "dtype", "accumulate", "compile", "keep_features")
_SAME_WORK = (*_ALIKE, "method_options", "recipe", "ways", "shots", "source")
_DEFAULTS = RunConfig.model_construct().model_dump(mode="json")


def _readable(pattern: str, read: Callable[[Path], Iterable[dict]] = read_rows) -> Iterator[dict[str, Any]]:
    """The runs in files of this pattern; a file that is no record of runs tells nothing about them."""
    for path in sorted(paths.project_root().glob(pattern)):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            yield from read(path)


def seconds_of(config: RunConfig, measured: Sequence[Mapping[str, Any]]) -> tuple[float, bool] | None:
    """What a run will take, and whether by runs that did the same work or by alike ones only; None where none is known.

    Medians over earlier runs on the same kind of device: the seconds of a training step times the steps, and those of
    all else per question times the questions.
    """

    def questions(parameters: Mapping[str, Any]) -> int:
        return parameters["episodes"] * (1 + len(parameters["targets"]))

    def of(parameters: Mapping[str, Any], name: str) -> Any:
        value = parameters.get(name, _DEFAULTS[name])
        return "toy" if value == "toy_splits" else value  # as much work

    wanted = config.model_dump(mode="json")
    device = "cuda" if config.device == "cuda" else choose_device(config.device)
    there = [row for row in measured if "training" in row and row["environment"]["device"] == device]
    for names in (_SAME_WORK, _ALIKE):
        like = [row for row in there if all(of(row["config"], n) == of(wanted, n) for n in names)]
        rates = [row["training"]["seconds"] / row["training"]["steps"] for row in like if row["training"]["steps"]]
        if like and (rates or not config.steps):
            rest = [max(0, row["seconds"] - row["training"]["seconds"]) / questions(row["config"]) for row in like]
            training = config.steps * median(rates) if config.steps else 0
            return training + median(rest) * questions(wanted), names == _SAME_WORK
    return None


def forecast(plan: Plan, *, jobs: int = 1) -> str:
    """What of a plan is done, what is left, and how long that takes, `jobs` at once, by what earlier runs took."""
    runs, left = plan.order(), plan.unfinished
    measured = [*_readable("results/*.json"), *_readable(f"runs/*/{FILE}", lambda path: [read_result(path)])]
    lines, seconds = [f"{plan.name}: {_runs(len(runs))}, {len(runs) - len(left)} done, {len(left)} to run"], []
    width = max((len(label) for label, _ in runs), default=0)
    for label in dict.fromkeys(label for label, _ in runs):
        planned = sum(other == label for other, _ in runs)
        missing = [config for other, config in left if other == label]
        known = [found for config in missing if (found := seconds_of(config, measured))]
        each = "  never measured" if missing else ""
        if known:
            seconds += (times := [time for time, _ in known])
            each = f"  {'about' if all(same for _, same in known) else 'roughly'} {_time(fmean(times))} each"
        lines.append(f"  {label:{width}}  {_runs(planned):>8}  {planned - len(missing):3} done{each}")
    rows = {row.get("config_sha256") for row in _readable(f"results/{plan.name}.json")}
    if elsewhere := sum(config.sha256 in rows for _, config in left):
        lines.append(
            f"results/{plan.name}.json holds {elsewhere} of these runs, whose folders are not here; running them again "
            "replaces their rows."
        )
    if made := {config.made_weights for _, config in left if config.made_weights and not config.made_weights.exists()}:
        from fsslib.training.pretrain import SECONDS

        lines.append(f"First start weights are trained, once for each of {len(made)} splits, {_time(SECONDS)} each.")
    if seconds:
        unknown = len(left) - len(seconds)
        seconds += [SECONDS for _ in made]
        more = f", and {_runs(unknown)} never measured" if unknown else ""
        total = _time(sum(seconds) / min(jobs, len(seconds)))
        lines.append(f"About {total} with {jobs} at a time, going by runs/ and results/{more}.")
    elif left:
        lines.append("How long that takes is not known: no such run was measured here. Make one, and ask again.")
    return "\n".join(lines)


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _time(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 100 else f"{hours} h" if hours < 72 else f"{round(hours / 24)} days"
