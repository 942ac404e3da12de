"""The papers' claims (`claims.yaml`) held against result files: judged by one rule, whichever way it falls.

A claim holds somewhere, not as such: every test has columns (domains, rare classes), and each gets its own verdict.

    python -m fsslib.reproduction.claims           how many comparisons of each world got which verdict; --json
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, TypeAdapter

from fsslib import paths
from fsslib.reproduction.plans import read_rows
from fsslib.reproduction.result import STRICT, Column, Runs, Selector, Unit, numbers
from fsslib.reproduction.statistics import Interval, Verdict, holm, needed, student_interval, verdict

World = Literal["toy world", "small real data", "full data"]
Word = Literal[Verdict, "not testable here", "not run"]
WORDS = tuple(word for kind in get_args(Word) for word in (get_args(kind) or (kind,)))


class Comparison(BaseModel):
    """Two labels of a plan and the columns they are compared in, of the runs with the parameters in `where`.

    Columns are said as those of a table (`tables.py`). `beside` names another plan with the same questions, if the
    baseline is a row of that one. `unit` is what was drawn independently: runs that share it are averaged.
    """

    model_config = STRICT

    plan: str
    beside: str = ""
    where: dict[str, str | int] = {}
    label: str
    baseline: str
    columns: list[Column] = Field(min_length=1)
    unit: Literal["split", "fold", "draw"]

    @property
    def compared(self) -> str:
        """The two labels, in a table's words."""
        return f"{self.label} minus {self.baseline}" + "".join(f", from {value}" for value in self.where.values())


class Control(Comparison):
    """A comparison that must hold before a test is judged: it `shows` that the part in question works at all."""

    shows: str


class Test(Comparison):
    """A comparison that tests a claim. `fixed`: whether it was written down before its runs were made, or after.

    Of its `control` the column of the same name counts, or the only one; a column that has none there has no control.
    """

    __test__ = False  # it is none of pytest's

    world: World
    fixed: Literal["before", "after"]
    control: Control | None = None


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
    """One column of one test: the paired difference, the differences of the pairs, the verdict, and its control's.

    `test` and `interval` are None, and the word is "not run", where there is no such test or none of its pairs.
    """

    claim: Claim
    test: Comparison | None
    column: str
    interval: Interval | None
    gaps: Mapping[Unit, float]
    word: Word
    control: "Judgement | None" = None

    @property
    def told(self) -> str:
        """The word, and what it lacks: the n that would be needed, or what the control showed.

        Where n would do for a difference of the margin, this one is near it.
        """
        if self.word == "inconclusive" and self.interval.error:
            more = needed(self.interval)
            return f"{self.word}, " + (f"needs n = {more}" if more > self.interval.n else "near the margin")
        return f"{self.word}: {self.control.interval}" if self.word == "not testable here" else self.word


def load_claims(path: Path | None = None) -> list[Claim]:
    """The claims of the package, or of another YAML file. Raises ValueError, as pydantic's, naming what is wrong."""
    text = (path or Path(__file__).with_name("claims.yaml")).read_text(encoding="utf-8")
    claims = TypeAdapter(list[Claim]).validate_python(yaml.safe_load(text)["claims"])
    ids = [claim.id for claim in claims]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise ValueError(f"two claims have the same id: {', '.join(twice)}")
    return claims


def comparisons_sha256(claims: Sequence[Claim]) -> str:
    """A hash of what is compared with what in which units; words about it may change."""
    said = [
        [claim.id, [test.model_dump(exclude={"fixed": True, "control": {"shows"}}) for test in claim.tests]]
        for claim in claims
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def results_of(plan: str) -> list[dict[str, Any]]:
    """The rows of a plan's results file: the user's own if it holds any, else the one that comes with fsslib."""
    folders = (paths.project_root() / "results", paths.shipped("results"))
    found = (folder / f"{plan}.json" for folder in folders)
    return next((rows for path in found if path.is_file() and (rows := read_rows(path))), [])


def judge(claim: Claim) -> list[Judgement]:
    """Every test of a claim in every column; a claim without tests gets one line that says so."""
    lines = [] if claim.tests else [Judgement(claim, None, "", None, {}, "not run")]
    for test in claim.tests:
        controls = _judged(claim, test.control) if test.control else []
        for line in _judged(claim, test):
            alike = (one for one in controls if len(controls) == 1 or one.column == line.column)
            control = next(alike, None)
            word = line.word
            if control and line.interval and control.word != "holds":
                word = "not run" if control.word == "not run" else "not testable here"
            lines.append(Judgement(claim, test, line.column, line.interval, line.gaps, word, control))
    return lines


def _judged(claim: Claim, asked: Comparison) -> list[Judgement]:
    """A comparison by itself, every column."""
    runs = [row for plan in (asked.plan, asked.beside) if plan for row in results_of(plan)]
    labels = (Selector(label=label, where=asked.where) for label in (asked.label, asked.baseline))
    gaps, intervals, p = compare(runs, asked.columns, *labels, asked.unit)
    words = {column: verdict(interval, p=p.get(column)) for column, interval in intervals.items()}
    return [Judgement(claim, asked, c, intervals.get(c), gaps[c], words.get(c, "not run")) for c in gaps]


def compare(
    runs: Runs, columns: Sequence[Selector], ours: Selector, theirs: Selector, unit: str
) -> tuple[dict[str, dict[Unit, float]], dict[str, Interval], dict[str, float]]:
    """One choice of runs against another in every column, each by its name.

    Returns the differences of the units that both have; of those columns that have any the mean with its interval; and
    of those that have intervals p, corrected over these columns.
    """
    gaps = {}
    for column in columns:
        minuend, subtrahend = (numbers(runs, column | choice, unit) for choice in (ours, theirs))
        gaps[column.name] = {u: minuend[u] - subtrahend[u] for u in sorted(minuend.keys() & subtrahend.keys())}
    intervals = {name: student_interval(list(found.values())) for name, found in gaps.items() if found}
    return gaps, intervals, holm({name: i.p for name, i in intervals.items() if i.p is not None})


def counted(lines: Sequence[Judgement]) -> dict[str, dict[str, int]]:
    """For each world the number of comparisons, a column of a test each, by verdict."""
    found = {world: Counter(x.word for x in lines if x.test and x.test.world == world) for world in get_args(World)}
    return {world: {word: words[word] for word in WORDS} for world, words in found.items()}


def in_numbers(lines: Sequence[Judgement]) -> str:
    """How many comparisons there are in each world, and how many of them have which verdict, as text."""
    told = []
    for world, words in counted(lines).items():
        each = ", ".join(f"{count} {word}" for word, count in words.items() if count)
        told.append(f"{world}, {sum(words.values())} comparisons: {each}")
    return ". ".join(told)


RULE = (
    "Points of mIoU between two rows, paired by unit: a class split, or a draw of images. Brackets hold Student's 95 % "
    "interval from 5 units on; a verdict takes 10. No effect: the 90 % interval lies within 1 point of zero, which is "
    'two one-sided tests at 5 %. Else "holds" is a difference significant at 5 % after Holm\'s correction over the '
    'columns of its test, and "does not hold" such a one the other way. All else is inconclusive, which is no "no". '
    "Not testable here: runs in which the part must be seen to work did not show it; where these are missing the "
    "comparison counts as not run. A verdict on the toy world is one on the toy world."
)


if __name__ == "__main__":
    judged = [line for claim in load_claims() for line in judge(claim)]
    print(json.dumps(counted(judged), indent=1) if sys.argv[1:] == ["--json"] else in_numbers(judged))
