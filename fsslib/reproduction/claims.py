"""The papers' claims (`claims.yaml`) held against result files: judged by one rule, whichever way it falls.

A claim holds somewhere, not as such: every test has columns (domains, rare classes), and each gets its own verdict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, TypeAdapter

from fsslib import paths
from fsslib.reproduction.plans import read_rows
from fsslib.reproduction.result import STRICT, Column, Runs, Selector, Unit, numbers
from fsslib.reproduction.statistics import Interval, Verdict, holm, student_interval, verdict

World = Literal["toy world", "small real data", "full data"]
WORDS = (*get_args(Verdict), "not run")


class Test(BaseModel):
    """Two labels of a plan and the columns they are compared in, of the runs with the parameters in `where`.

    Columns are said as those of a table (`tables.py`). `beside` names another plan with the same questions, if the
    baseline is a row of that one. `fixed`: whether this was written down before the runs were made, or after.
    """

    model_config = STRICT
    __test__ = False  # it is none of pytest's

    world: World
    plan: str
    beside: str = ""
    where: dict[str, str | int] = {}
    label: str
    baseline: str
    columns: list[Column] = Field(min_length=1)
    fixed: Literal["before", "after"]

    @property
    def compared(self) -> str:
        """The two labels, in a table's words."""
        return f"{self.label} minus {self.baseline}" + "".join(f", from {value}" for value in self.where.values())


class Claim(BaseModel):
    """What a paper says, in our words, with its own figures; `instead` is what is compared here if not the same."""

    model_config = STRICT

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    paper: Literal["SG-One", "RtD", "PixDA"]
    claim: str
    figures: str = ""
    difference: float | None = None
    instead: str = ""
    tests: list[Test]

    @property
    def steps_alike(self) -> bool:
        """Whether the paper's difference is of the same comparison as ours."""
        return self.difference is not None and not self.instead

    @property
    def says(self) -> str:
        """The paper's side of the comparison, in a table's words."""
        step = [] if self.difference is None else [f"{self.difference:+.1f}"]
        return ": ".join([*step, *filter(None, [self.figures])]) or "–"


@dataclass(frozen=True)
class Judgement:
    """One column of one test: the paired difference, the differences of the pairs, the verdict.

    `test` and `interval` are None, and the word is "not run", where there is no such test or none of its pairs.
    """

    claim: Claim
    test: Test | None
    column: str
    interval: Interval | None
    gaps: Mapping[Unit, float]
    word: Verdict | Literal["not run"]


def load_claims(path: Path | None = None) -> list[Claim]:
    """The claims of the package, or of another YAML file. Raises ValueError, as pydantic's, naming what is wrong."""
    text = (path or Path(__file__).with_name("claims.yaml")).read_text(encoding="utf-8")
    claims = TypeAdapter(list[Claim]).validate_python(yaml.safe_load(text)["claims"])
    ids = [claim.id for claim in claims]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise ValueError(f"two claims have the same id: {', '.join(twice)}")
    return claims


def results_of(plan: str) -> list[dict[str, Any]]:
    """The rows of a plan's results file: the user's own if it holds any, else the one that comes with fsslib."""
    folders = (paths.project_root() / "results", paths.shipped("results"))
    found = (folder / f"{plan}.json" for folder in folders)
    return next((rows for path in found if path.is_file() and (rows := read_rows(path))), [])


def judge(claim: Claim) -> list[Judgement]:
    """Every test of a claim in every column; a claim without tests gets one line that says so."""
    lines = [] if claim.tests else [Judgement(claim, None, "", None, {}, "not run")]
    for test in claim.tests:
        runs = [row for plan in (test.plan, test.beside) if plan for row in results_of(plan)]
        labels = (Selector(label=label, where=test.where) for label in (test.label, test.baseline))
        gaps, intervals, p = compare(runs, test.columns, *labels)
        words = {column: verdict(interval, p=p.get(column)) for column, interval in intervals.items()}
        lines += [Judgement(claim, test, c, intervals.get(c), gaps[c], words.get(c, "not run")) for c in gaps]
    return lines


def compare(
    runs: Runs, columns: Sequence[Selector], ours: Selector, theirs: Selector
) -> tuple[dict[str, dict[Unit, float]], dict[str, Interval], dict[str, float]]:
    """One choice of runs against another in every column, each by its name.

    Returns the differences of the pairs; of those columns that have any the mean with its interval; and of those that
    have intervals p, corrected over these columns.
    """
    gaps = {}
    for column in columns:
        minuend, subtrahend = numbers(runs, column | ours), numbers(runs, column | theirs)
        gaps[column.name] = {u: minuend[u] - subtrahend[u] for u in sorted(minuend.keys() & subtrahend.keys())}
    intervals = {name: student_interval(list(found.values())) for name, found in gaps.items() if found}
    return gaps, intervals, holm({name: i.p for name, i in intervals.items() if i.p is not None})


RULE = (
    "Points of mIoU, paired by fold and seed, with Student's 95 % interval where there are 5 pairs or more. A verdict "
    "takes 10 pairs and a difference that is significant at 5 % after Holm's correction over the columns of its test; "
    '"does not hold" is such a difference the other way, all else is inconclusive, which is no "no". A verdict on the '
    "toy world is one on the toy world."
)
