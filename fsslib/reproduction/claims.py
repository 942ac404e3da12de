"""The papers' claims (`claims.yaml`) held against result files: judged by one rule, whichever way it falls.

A claim holds somewhere, not as such: every test has columns (domains, rare classes), and each gets its own verdict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fsslib import paths
from fsslib.reproduction.plans import read_rows
from fsslib.reproduction.statistics import Interval, Verdict, holm, paired_difference, verdict
from fsslib.reproduction.street_tables import rare_by_unit
from fsslib.reproduction.table import Table, Unit, by_unit

World = Literal["toy world", "small real data", "full data"]
WORDS = (*get_args(Verdict), "not run")
_RARE = "rare classes of "


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Test(_Strict):
    """Two labels of a plan, of one source if it says which, and the columns they are compared in.

    `beside` names another plan with the same questions, if the baseline is a row of that one. `fixed`: whether the
    comparison was written down before its runs were made, or after.
    """

    __test__ = False  # it is none of pytest's

    world: World
    plan: str
    beside: str = ""
    source: str = ""
    label: str
    baseline: str
    columns: list[str] = Field(min_length=1)
    fixed: Literal["before", "after"]

    @property
    def compared(self) -> str:
        """The two labels, in a table's words."""
        return f"{self.label} minus {self.baseline}" + (f", from {self.source}" if self.source else "")


class Claim(_Strict):
    """What a paper says, in our words, with its own figures; `instead` is what is compared here if not the same."""

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
        step = "" if self.difference is None else f"{self.difference:+.1f}"
        return ": ".join(filter(None, (step, self.figures))) or "–"


class Claims(_Strict):
    """All of them, under ids that differ."""

    claims: list[Claim]

    @model_validator(mode="after")
    def _ids_differ(self) -> "Claims":
        ids = [claim.id for claim in self.claims]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"two claims have the same id: {', '.join(twice)}")
        return self


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
    """The claims of the package, or of another YAML file. Raises pydantic's ValidationError naming what is wrong."""
    source = path or resources.files("fsslib.reproduction") / "claims.yaml"
    return Claims.model_validate(yaml.safe_load(source.read_text(encoding="utf-8"))).claims


def results_of(plan: str) -> list[dict[str, Any]]:
    """The rows of a plan's results file: the user's own if it holds any, else the one that comes with fsslib."""
    folders = (paths.project_root() / "results", paths.shipped("results"))
    found = (folder / f"{plan}.json" for folder in folders)
    return next((rows for path in found if path.is_file() and (rows := read_rows(path))), [])


def judge(claim: Claim) -> list[Judgement]:
    """Every test of a claim in every column; a claim without tests gets one line that says so."""
    if not claim.tests:
        return [Judgement(claim, None, "", None, {}, "not run")]
    rows = (
        (test, [row for plan in (test.plan, test.beside) if plan for row in results_of(plan)]) for test in claim.tests
    )
    return [line for test, runs in rows for line in _judge(claim, test, runs)]


def _judge(claim: Claim, test: Test, runs: Sequence[Mapping[str, Any]]) -> list[Judgement]:
    gaps = {column: _gaps(runs, test, column) for column in test.columns}
    intervals = {c: paired_difference(found, dict.fromkeys(found, 0.0)) for c, found in gaps.items() if found}
    corrected = holm({column: i.p for column, i in intervals.items() if i.p is not None})
    words = {column: verdict(i, p=corrected.get(column)) for column, i in intervals.items()}
    return [Judgement(claim, test, c, intervals.get(c), gaps[c], words.get(c, "not run")) for c in test.columns]


def _gaps(runs: Sequence[Mapping[str, Any]], test: Test, column: str) -> dict[Unit, float]:
    runs = [run for run in runs if test.source in ("", run["config"].get("source"))]
    measure = rare_by_unit if column.startswith(_RARE) else by_unit
    ours, theirs = (measure(runs, label, column.removeprefix(_RARE)) for label in (test.label, test.baseline))
    return {unit: ours[unit] - theirs[unit] for unit in sorted(ours.keys() & theirs.keys())}


def claims_table(paper: str | None = None) -> Table:
    """A row for each column of each test, of all papers or of one: the paper's figure, ours, and the verdict."""
    rows = []
    for claim in (claim for claim in load_claims() if paper in (None, claim.paper)):
        for number, line in enumerate(judge(claim)):
            said = ("", "") if number else (f"{claim.paper}: {claim.claim}", claim.says)
            compared, where = (line.test.compared, f"{line.test.world}, {line.column}") if line.test else ("–", "–")
            rows.append((*said, compared, where, str(line.interval or "–"), line.word))
    head = ("claim", "the paper says", "compared here", "in", "here", "verdict")
    return Table(_TITLE, head, tuple(rows), RULE)


def claims_summary() -> Table:
    """A row for each claim, a column for each kind of data with runs: where it holds, and by how much."""
    judged = [(claim, judge(claim)) for claim in load_claims()]
    run = {line.test.world for _, lines in judged for line in lines if line.interval}
    worlds = [world for world in get_args(World) if world in run]
    rows = [
        (f"{claim.paper}: {claim.claim}", claim.says, *(_at_a_glance(lines, world) for world in worlds))
        for claim, lines in judged
    ]
    head = ("claim", "the paper says", *(f"here, {world}" for world in worlds))
    note = f"{RULE} † Chosen when the numbers were known: a question for new runs."
    return Table(_TITLE, head, tuple(rows), note)


def _at_a_glance(lines: Sequence[Judgement], world: str) -> str:
    """The verdicts of a claim in one kind of data as a sentence, the columns with the same word together."""
    tests = []
    run = (x for x in lines if x.interval and x.test.world == world)
    for (compared, _), group in groupby(run, lambda x: (x.test.compared, x.test.plan)):
        group = list(group)
        said = [
            f"{word} in " + ", ".join(f"{x.column} ({x.interval.mean:+.1f})" for x in group if x.word == word)
            for word in WORDS[:3]
            if any(x.word == word for x in group)
        ]
        counts = sorted({x.interval.n for x in group})
        mark = "" if group[0].test.fixed == "before" else "† "
        tests.append(f"{mark}{compared}: {', '.join(said)}; n = {' or '.join(map(str, counts))}")
    return ". ".join(tests) or ("not run" if any(line.test for line in lines) else "no run tests it")


_TITLE = "The papers' claims and what became of them"
RULE = (
    "Points of mIoU, paired by fold and seed, with Student's 95 % interval where there are 5 pairs or more. A verdict "
    "takes 10 pairs and a difference that is significant at 5 % after Holm's correction over the columns of its test; "
    '"does not hold" is such a difference the other way, all else is inconclusive, which is no "no". A verdict on the '
    "toy world is one on the toy world."
)
