"""Plans: which runs make a table. A YAML file of small matrices, expanded to run configs, run, and gathered in one
file.

    name: sg_one_toy
    runs:
      - {label: SG-One, method: sg_one, fold: [0, 1, 2, 3], seed: [0, 1, 2]}

A list stands for its elements, and every combination is a run. `label` names the row of the table; all else are
parameters of a run. A gathered file grows as runs end, so that nothing is lost when a plan is stopped.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from fsslib import paths
from fsslib.episodes import write_atomically
from fsslib.reproduction.config import ConfigError, RunConfig, parse
from fsslib.reproduction.result import FILE, read_result


@dataclass(frozen=True)
class Plan:
    """A name, and runs with the label of the table row they belong to."""

    name: str
    runs: tuple[tuple[str, RunConfig], ...]

    @classmethod
    def load(cls, name: str | Path) -> "Plan":
        """A plan of the package by name, or a YAML file by path. Raises ConfigError saying what is wrong, and where."""
        shelf = resources.files("fsslib.reproduction") / "plan_files"
        known = sorted(f.name.removesuffix(".yaml") for f in shelf.iterdir() if f.name.endswith(".yaml"))
        path = shelf / f"{name}.yaml" if str(name) in known else Path(name)
        if not path.is_file():
            raise ConfigError(f"no plan {str(name)!r}: give a YAML file, or one of {', '.join(known)}")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or set(content) != {"name", "runs"}:
            raise ConfigError(f"{path}: a plan has the two entries name and runs")
        runs = []
        for matrix in content["runs"]:
            try:
                label = matrix.pop("label")
                runs += [(label, parse(values)) for values in expand(matrix)]
            except (AttributeError, KeyError):
                raise ConfigError(f"{path}: each of the runs is a mapping with a label; found {matrix!r}") from None
            except ConfigError as error:
                raise ConfigError(f"{path}, runs labelled {label!r}: {error}") from error
        return cls(content["name"], tuple(runs))

    @property
    def results_file(self) -> Path:
        return paths.project_root() / "results" / f"{self.name}.json"


def expand(matrix: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of a matrix's lists; `targets` is a list by nature and stands for itself."""
    axes = [value if isinstance(value, list) and name != "targets" else [value] for name, value in matrix.items()]
    for values in itertools.product(*axes):
        yield dict(zip(matrix, values))


def carry_out(plan: Plan, *, jobs: int = 1) -> list[str]:
    """Run what is not finished, `jobs` at a time with the cores shared between them; return what failed, one line each.

    Each run is a process of its own, `fsslib run` on a file of parameters. After each the results file is rewritten.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    failures = []

    def one(label: str, config: RunConfig) -> str | None:
        config.folder.mkdir(parents=True, exist_ok=True)
        parameters = config.folder / "plan.yaml"
        write_atomically(parameters, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        command = [sys.executable, "-m", "fsslib.cli", "run", str(parameters)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=paths.project_root())
        return None if done.returncode == 0 else f"{label}, {config.run_id}: {done.stderr.strip()}"

    waiting = [run for run in plan.runs if not (run[1].folder / FILE).exists()]
    print(f"{plan.name}: {len(plan.runs) - len(waiting)} of {len(plan.runs)} runs are there", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(one, *run): run for run in waiting}
        for number, future in enumerate(as_completed(futures), start=1):
            label, config = futures[future]
            if problem := future.result():
                failures.append(problem)
            print(f"{number}/{len(waiting)}  {label}  {config.run_id}  {'failed' if problem else 'done'}", flush=True)
            gather(plan)
    gather(plan)
    return failures


def gather(plan: Plan) -> Path:
    """Write the finished runs of a plan to `results/NAME.json`, one row a run, and return the path.

    Rows whose run folder is not on this machine are kept from the file that is there, as long as the plan still holds
    their parameters, so a plan may be completed on several machines.
    """
    kept = {row["config_sha256"]: row for row in read_rows(plan.results_file)} if plan.results_file.exists() else {}
    rows = []
    for label, config in plan.runs:
        path = config.folder / FILE
        if path.exists():
            rows.append({"label": label} | _row(path))
        elif config.sha256 in kept:
            rows.append(kept[config.sha256] | {"label": label})
    content = {"schema_version": 1, "plan": plan.name, "command": f"fsslib reproduce {plan.name}", "runs": rows}
    write_atomically(plan.results_file, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return plan.results_file


def read_rows(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a results file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))["runs"]


def _row(path: Path) -> dict[str, Any]:
    """What a table or a test may need of a run; the counts of every episode stay in its folder, named by hash."""
    result = read_result(path)
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
