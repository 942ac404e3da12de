"""What of a plan is done, what is left, and how long that will take by what earlier runs took."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from fsslib import paths
from fsslib.reproduction.config import RunConfig
from fsslib.reproduction.environment import choose_device
from fsslib.reproduction.plans import read_rows, recorded
from fsslib.reproduction.result import FILE, read_result

Row = dict[str, Any]

_ALIKE = ("method", "data", "backbone", "image_size", "batch_size", "dtype", "accumulate", "compile")
_SAME_WORK = (*_ALIKE, "method_options", "recipe", "ways", "shots", "source")
_DEFAULTS = RunConfig.model_construct().model_dump(mode="json")


def measured_runs() -> list[Row]:
    """Every finished run that this project knows of: the rows of results/, and the results in runs/."""
    return [*_readable(read_rows, "results/*.json"), *_readable(lambda path: [read_result(path)], f"runs/*/{FILE}")]


def _readable(read: Callable[[Path], Iterable[Row]], pattern: str) -> Iterator[Row]:
    """The runs in files of this pattern; a file that is no record of runs tells nothing about them."""
    for path in sorted(paths.project_root().glob(pattern)):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            yield from read(path)


def seconds_of(config: RunConfig, measured: Sequence[Row]) -> tuple[float, bool] | None:
    """What a run will take, and whether by runs that did the same work or by alike ones only; None where none is known.

    Medians over earlier runs on the same kind of device: the seconds of a training step times the steps, and those of
    all else per question times the questions.
    """
    wanted = config.model_dump(mode="json")
    device = "cuda" if config.device == "cuda" else choose_device(config.device)
    there = [row for row in measured if row["environment"]["device"] == device]
    for names in (_SAME_WORK, _ALIKE):
        like = [row for row in there if all(row["config"].get(n, _DEFAULTS[n]) == wanted[n] for n in names)]
        rates = [row["training"]["seconds"] / row["training"]["steps"] for row in like if row["training"]["steps"]]
        if like and (rates or not config.steps):
            rest = [max(0, row["seconds"] - row["training"]["seconds"]) / _questions(row["config"]) for row in like]
            training = config.steps * median(rates) if config.steps else 0
            return training + median(rest) * _questions(wanted), names == _SAME_WORK
    return None


def _questions(config: Row) -> int:
    return config["episodes"] * (1 + len(config["targets"]))


def forecast(name: str, runs: Sequence[tuple[str, RunConfig]], *, jobs: int = 1) -> str:
    """A plan's rows with their runs, those that are done and the time of the others, `jobs` of them at once."""
    measured = measured_runs()
    done = {config.folder for _, config in runs if recorded(config)}
    rows = {row.get("config_sha256") for row in _readable(read_rows, f"results/{name}.json")}
    elsewhere = sum(config.folder not in done and config.sha256 in rows for _, config in runs)
    lines, total, unknown = [], 0.0, 0
    width = max((len(label) for label, _ in runs), default=0)
    for label in dict.fromkeys(label for label, _ in runs):
        configs = [config for other, config in runs if other == label]
        left = [config for config in configs if config.folder not in done]
        known = [found for config in left if (found := seconds_of(config, measured))]
        total += sum(seconds for seconds, _ in known)
        unknown += len(left) - len(known)
        line = f"  {label:{width}}  {_runs(len(configs)):>8}  {len(configs) - len(left):3} done"
        if known:
            rough = "about" if all(same for _, same in known) else "roughly"
            line += f"  {rough} {_time(sum(seconds for seconds, _ in known) / len(known))} each"
        elif left:
            line += "  never measured"
        lines.append(line)
    if elsewhere:
        lines.append(
            f"results/{name}.json holds {elsewhere} of these runs, whose folders are not here; running them again "
            "replaces their rows."
        )
    left = len(runs) - len(done)
    head = f"{name}: {_runs(len(runs))}, {len(done)} done, {left} to run"
    if not left:
        return "\n".join([head, *lines])
    if unknown == left:
        unknown_time = "How long that takes is not known: no such run was measured here. Make one, and ask again."
        return "\n".join([head, *lines, unknown_time])
    last = f"About {_time(total / min(jobs, left - unknown))} with {jobs} at a time, going by runs/ and results/"
    more = f", and {_runs(unknown)} never measured" if unknown else ""
    return "\n".join([head, *lines, f"{last}{more}."])


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _time(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 100 else f"{hours} h" if hours < 72 else f"{round(hours / 24)} days"
