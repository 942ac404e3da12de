"""What the records of runs say: reading `result.json`, and choosing numbers out of many. Light: nothing here imports
torch. `Experiment.record` writes them.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from fsslib.reproduction.config import RunConfig

FILE, CHECKPOINT = "result.json", "checkpoint.pt"
SCHEMA_VERSION = 1

RARE = ("pole", "sign", "person", "rider", "pedestrian", "bicyclist")
"""The rarest third of the classes of streets, by share of pixels; the last two are CamVid's names."""

Runs = Sequence[Mapping[str, Any]]
"""Records with their labels: the rows of a results file."""
Unit = Hashable
"""What was drawn by itself, or the hash of the questions for an answer that does not look."""
UNITS = {"split": ("fold",), "fold": ("fold",), "draw": ("fold", "draw", "seed")}
"""The parameters that name a unit. Seeds of a split or a fold share its classes and its questions."""
Domains = Annotated[list[str], BeforeValidator(lambda said: [said] if isinstance(said, str) else said)]


class RunError(RuntimeError):
    """A run that did not succeed, or could not be started. `notebook` is its executed copy where there is one."""

    def __init__(self, message: str, notebook: Path | None = None):
        super().__init__(message if notebook is None else f"{message}\nThe notebook as far as it came: {notebook}")
        self.notebook = notebook


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM stopped a run; its checkpoint is kept, and the next call goes on from there."""


def read_result(path: Path | str) -> dict[str, Any]:
    """A result file's content. Raises ValueError when it is damaged or of another schema version."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise ValueError(f"its schema version is {version!r}; this fsslib reads {SCHEMA_VERSION}")
    return content


def config_of(path: Path | str) -> RunConfig:
    """The parameters a result file was made with, all but `output`. Raises ValueError as `read_result`, and where the
    same parameters mean something else today."""
    content = read_result(path)
    config = RunConfig(**content["config"])
    if content.get("config_sha256", config.sha256) != config.sha256:
        raise ValueError(f"{path} is of earlier rules: {config.run_id} has the hash {config.sha256[:8]} now")
    return config


STRICT = ConfigDict(frozen=True, strict=True, extra="forbid")
"""Of what YAML files describe: every entry has its type, and none is unknown."""


class Selector(BaseModel):
    """Which number of which runs: what a row and a column of a table, or a claim's label and column, say together.

    `label`, `where` (parameters) and `home` (trained in the domain that is asked) choose runs. The number is the mIoU
    in a domain (`score`), over its rare classes alone (`rare`), or of an answer that does not look (`floor`). Of
    several domains it is the first that a run was tested in. `show` tells of the runs themselves instead.
    """

    model_config = STRICT

    title: str = ""
    label: str = ""
    where: dict[str, str | int] = {}
    home: bool = False
    score: Domains = []
    rare: Domains = []
    floor: Literal["", "everything", "every_object"] = ""
    show: Literal["", "runs", "classes", "seconds"] = ""

    @model_validator(mode="after")
    def _asks_one_thing(self) -> "Selector":
        if self.rare and (self.score or self.floor):
            raise ValueError(f"rare: {self.rare[0]} is a number of its own; leave score and floor out beside it")
        return self

    @property
    def name(self) -> str:
        """What stands over its column or before its row."""
        rare = f"{self.rare[0]}, rare classes" if self.rare else ""
        return self.title or self.label or next(iter(self.score), "") or rare or self.floor or self.show

    def __or__(self, other: "Selector") -> "Selector":
        """What both say; `other` where they say the same thing differently."""
        said = self.model_dump(exclude_unset=True) | other.model_dump(exclude_unset=True)
        return Selector(**said | {"where": self.where | other.where})

    def domain(self, run: Mapping[str, Any]) -> str | None:
        """Where this run is asked; None if it was not tested there, or no domain is named."""
        return next((domain for domain in self.score or self.rare if domain in run["scores"]), None)


Column = Annotated[Selector, BeforeValidator(lambda said: {"score": said} if isinstance(said, str) else said)]
"""A selector of which a text is the domain."""
Row = Annotated[Selector, BeforeValidator(lambda said: {"label": said} if isinstance(said, str) else said)]
"""A selector of which a text is the label."""


def chosen(runs: Runs, asked: Selector) -> Runs:
    """The runs with this label and these parameters, if any are named, that were tested in the domain, if one is."""
    return [
        run
        for run in runs
        if asked.label in ("", run["label"])
        and all(run["config"].get(name) == value for name, value in asked.where.items())
        and (asked.domain(run) or not (asked.score or asked.rare))
        and (not asked.home or run["config"]["source"] == asked.domain(run))
    ]


def numbers(runs: Runs, asked: Selector, unit: str = "draw") -> dict[Unit, float]:
    """The number that is asked for of the runs it chooses, in percent, a mean for each unit (one of UNITS).

    Runs in which it is undefined are left out. What an answer that does not look scores is the same for all networks
    with the same questions, and counted once for each list of them. Older records know it for the source alone.
    """
    found: dict[Unit, list[float]] = {}
    for run in chosen(runs, asked):
        domain, key = asked.domain(run), tuple(run["config"].get(name, 0) for name in UNITS[unit])
        if domain is None:
            raise ValueError(f"{asked.name!r} names no domain; give one as score or rare, or something to show")
        score = run["scores"][domain]
        if asked.floor:
            by_domain = run["floors"].get("by_domain", {}) if asked.floor == "everything" else {}
            key, value = score["manifest_sha256"], by_domain.get(domain, run["floors"].get(asked.floor))
        elif asked.rare:
            ious = [iou for name, iou in score["per_class"].items() if name in RARE and iou is not None]
            value = sum(ious) / len(ious) if ious else None
        else:
            value = score["miou"]
        if value is not None:
            found.setdefault(key, []).append(100 * value)
    return {key: fmean(values) for key, values in found.items()}


def score_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """The `scores` of a result as text, one line a domain, in percent."""
    return "\n".join(f"{name:14}" + "".join(f"{cell:>10}" for cell in cells) for name, *cells in score_rows(scores))


def score_rows(scores: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The headings of the scores that there are, and a row for each domain: shares in percent, counts as they are."""
    there = {key: title for key, title in _TITLES.items() if any(key in score for score in scores.values())}
    cells = [[f"{100 * s[k]:.1f}" if t != k else f"{s[k]}" for k, t in there.items()] for s in scores.values()]
    return [("domain", *there.values()), *((domain, *row) for domain, row in zip(scores, cells))] if scores else []


_TITLES = {"miou": "mIoU", "fb_iou": "FB-IoU", "exact_ratio": "exact", "pixel_accuracy": "accuracy"} | {
    count: count for count in ("episodes", "images")
}
