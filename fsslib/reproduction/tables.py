"""The tables of results, made from `results/*.json` and nothing else; `python -m fsslib.reproduction.tables` puts them
into README and the pages of docs/.

What a plan's tables show is described in its own YAML file, beside its runs: a cell is what its row and its column say
together (`fsslib.reproduction.result.Selector`). A text for a row is a label, for a column a domain, "*" all labels of
the plan.

    tables:
      - title: Toy world, 1-shot mIoU on held-out classes
        columns: [{show: runs}, photo, night, {rare: cities}]
        rows: [{title: everything marked, floor: everything}, prototypes, "*"]
        note: A rate of 0.01.
      - columns: [photo, night]
        differences: [[SG-One, prototypes]]

Numbers are mIoU in percent: the mean over the units, and Student's 95 % interval where there are five or more.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, get_args

import yaml
from jinja2 import Environment, StrictUndefined
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from fsslib import paths
from fsslib.data.catalogue import CATALOGUE
from fsslib.files import write_atomically
from fsslib.reproduction.claims import RULE, WORDS, Judgement, World, compare, in_numbers, judge, load_claims
from fsslib.reproduction.config import ConfigError
from fsslib.reproduction.plans import Plan, read_rows, shipped_plans
from fsslib.reproduction.result import STRICT, UNITS, Column, Row, Runs, Selector, chosen, numbers
from fsslib.reproduction.statistics import student_interval


@dataclass(frozen=True)
class Table:
    """A table with a title and a note on how to read it; all cells are text."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str

    def markdown(self) -> str:
        columns = ([row[n] for row in self.rows] for n in range(len(self.head)))
        numbers = [all(c[:1] in "+-–0123456789" and ": " not in c for c in column) for column in columns]
        lines = [self.head, ["---:" if number else "---" for number in numbers], *self.rows]
        body = _lines(lines).replace("*", r"\*")  # A*S*B is no emphasis
        return f"**{self.title}**\n\n{body}\n\n{self.note}"


def _lines(rows: Iterable[Iterable[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


class Description(BaseModel):
    """What one table shows: the scores of its rows, or the paired `differences` of two labels each.

    `unit` is what was drawn independently: runs that share it are averaged. `where` has parameters that all its runs
    share; `beside` is another plan with the same questions, whose rows may
    stand in it too. `note` is a Jinja template: in it `folds` and `seeds` are the numbers of these, `steps[LABEL]` and
    `seconds[LABEL]` the medians of a label's trainings.
    """

    model_config = STRICT

    title: str = "Differences, paired by unit"
    unit: Literal[tuple(UNITS)] = "draw"
    where: dict[str, str | int] = {}
    beside: str = ""
    columns: list[Column] = Field(min_length=1)
    rows: list[Row] = [Selector(label="*")]
    differences: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    note: str = ""


def descriptions(plan: Plan) -> list[Description]:
    """The plan's tables. Raises ConfigError naming the table, from 0, and what is wrong with it."""
    try:
        return TypeAdapter(list[Description]).validate_python(list(plan.tables))
    except ValidationError as error:
        raise ConfigError(f"the tables of the plan {plan.name}: {error}") from error


def make(table: Description, runs: Runs, beside: Runs = ()) -> Table:
    """The table of a description, from the runs of its plan and of the plan beside."""
    runs = chosen(runs, Selector(where=table.where))
    pool, head = [*runs, *beside], ("", *(column.name for column in table.columns))
    if table.differences:
        rows = tuple(_difference(pool, table.columns, *pair, table.unit) for pair in table.differences)
        note = f"p values are Holm-corrected over the {len(table.columns)} columns."
        return Table(table.title, head, rows, f"Points of mIoU with Student's 95 % interval; {note}")
    labels = [Selector(label=label) for label in _labels(runs)]
    rows = [row for said in table.rows for row in (labels if said.label == "*" else [said])]
    cells = tuple((row.name, *(cell(pool, column | row, table.unit) for column in table.columns)) for row in rows)
    return Table(table.title, head, cells, f"{_filled(table.note, runs)} {circumstances(runs)}")


def cell(runs: Runs, asked: Selector, unit: str = "draw") -> str:
    """Mean and interval as text: a dash without runs, the mean alone where there are too few for an interval.

    Of the runs themselves it is their number, that of their classes, or the seconds of the fastest, which tells most
    about the method: without those records that have the `seconds` of their last part after an interruption alone.
    """
    if asked.show == "runs":
        return str(len(chosen(runs, asked)))
    if asked.show:
        seconds = {r["seconds"] for r in chosen(runs, asked) if r["seconds"] >= r["training"]["seconds"]}
        classes = {len(run["classes"]["test"]) for run in chosen(runs, asked)[:1]}
        return f"{min(found):.0f}" if (found := classes if asked.show == "classes" else seconds) else "–"
    if not (found := list(numbers(runs, asked, unit).values())):
        return "–"
    interval = student_interval(found)
    return f"{interval.mean:.1f}" + (f" [{interval.low:.1f}, {interval.high:.1f}]" if interval.p is not None else "")


def _difference(runs: Runs, columns: Sequence[Selector], label: str, baseline: str, unit: str) -> tuple[str, ...]:
    _, intervals, p = compare(runs, columns, Selector(label=label), Selector(label=baseline), unit)
    told = {name: f", p {p[name]:.3f}" if p[name] >= 0.001 else ", p < 0.001" for name in p}
    cells = {name: f"{interval}{told.get(name, '')}" for name, interval in intervals.items()}
    return (f"{label} minus {baseline}", *(cells.get(column.name, "–") for column in columns))


def _filled(note: str, runs: Runs) -> str:
    said = {f"{name}s": len({run["config"][name] for run in runs}) for name in ("fold", "seed")}
    by_label = {label: [run["training"] for run in runs if run["label"] == label] for label in _labels(runs)}
    for key in ("steps", "seconds"):
        medians = {label: f"{median(each[key] for each in found):.0f}" for label, found in by_label.items()}
        said[key] = defaultdict(lambda: "–", medians)
    return _told(note, **said)


def _labels(runs: Runs) -> list[str]:
    return list(dict.fromkeys(run["label"] for run in runs))


def circumstances(runs: Runs) -> str:
    """Hardware, versions and episodes, as far as the runs agree on them."""
    environments = [run["environment"] for run in runs]
    devices = sorted({e["device_name"] for e in environments})
    versions = sorted({e["versions"]["torch"] or "?" for e in environments})
    asked = "episodes" if "episodes" in next(iter(runs[0]["scores"].values())) else "images"
    counts = sorted({s[asked] for run in runs for s in run["scores"].values()})
    asked = asked.replace("images", "test images")
    return f"{' and '.join(map(str, counts))} {asked} a run; {', '.join(devices)}; torch {', '.join(versions)}."


def _told(template: str, **names: Any) -> str:
    return _TEMPLATES.from_string(" ".join(template.split())).render(names)


_TEMPLATES = Environment(undefined=StrictUndefined)


def _listed(table: Mapping[str, Any], things: Iterable[Any], **known: Any) -> Table:
    """A table of things that are no runs, as `tables.yaml` describes it."""
    rows = tuple(tuple(_told(template, it=thing) for template in table["columns"].values()) for thing in things)
    title, note = (_told(table.get(name, ""), **known) for name in ("title", "note"))
    return Table(title, tuple(table["columns"]), rows, note)


def _lists() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("tables.yaml").read_text(encoding="utf-8"))


def tables() -> dict[str, list[Table]]:
    """The tables of every results file that comes with fsslib, by plan: those of the claims first, in their order."""
    folder, found = paths.shipped("results"), {}
    there = {name: read_rows(path) for name in shipped_plans() if (path := folder / f"{name}.json").is_file()}
    tested = [test.plan for claim in load_claims() for test in claim.tests]
    for name in (name for name in dict.fromkeys((*tested, *there)) if there.get(name)):
        if described := descriptions(Plan.load(name)):
            found[name] = [make(table, there[name], there.get(table.beside, ())) for table in described]
    if (path := folder / "bench.json").is_file():  # what `make bench` measured
        measured = json.loads(path.read_text(encoding="utf-8"))
        found["bench"] = [_listed(table, measured[table["each"]], **measured) for table in _lists()["bench"]]
    return found


def claims_table(paper: str | None = None) -> Table:
    """A row for each column of each test, of all papers or of one: the paper's figure, ours, and the verdict."""
    claims = [claim for claim in load_claims() if paper in (None, claim.paper)]
    return _listed(_lists()["claims"], (line for claim in claims for line in enumerate(judge(claim))), rule=RULE)


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
    lines = [line for _, found in judged for line in found]
    note = f"In numbers: {in_numbers(lines)}. {RULE} † Chosen when the numbers were known: a question for new runs."
    return Table(_lists()["claims"]["title"], head, tuple(rows), note)


def _at_a_glance(lines: Sequence[Judgement], world: str) -> str:
    """The verdicts of a claim in one kind of data as a sentence, the columns with the same word together."""
    tests = []
    run = (x for x in lines if x.interval and x.test.world == world)
    for (compared, _), group in groupby(run, lambda x: (x.test.compared, x.test.plan)):
        group = list(group)
        steps = {w: [f"{x.column} ({x.interval.mean:+.1f})" for x in group if x.word == w] for w in WORDS[:-1]}
        said = [f"{word} in {', '.join(found)}" for word, found in steps.items() if found]
        counts = sorted({x.interval.n for x in group})
        mark = "" if group[0].test.fixed == "before" else "† "
        tests.append(f"{mark}{compared}: {', '.join(said)}; n = {' or '.join(map(str, counts))}")
    return ". ".join(tests) or ("not run" if any(line.test for line in lines) else "no run tests it")


def listing(name: str, things: Iterable[Any]) -> str:
    """Things that are no runs as a Markdown table of `tables.yaml`."""
    table = _lists()[name]
    return "\n".join([_lines([table["columns"]]), table["under"], _lines(_listed(table, things).rows)])


def parts() -> dict[str, str]:
    """What the pages are filled with: the notebook index, the data sets, the claims and the tables of each plan."""
    index = yaml.safe_load((paths.shipped("notebooks") / "index.yml").read_text(encoding="utf-8"))
    found = {name: "\n\n".join(table.markdown() for table in group) for name, group in tables().items()}
    return found | {
        "notebooks": listing("notebooks", index["notebooks"]),
        "data": listing("data", (entry for entry in CATALOGUE.values() if entry.folder)),
        "claims": claims_summary().markdown(),
    }


PAGES = ("README.md", "docs/results.md", "docs/data.md")


def fill(pages: Mapping[str, str], parts: Mapping[str, str]) -> dict[str, str]:
    """The pages with the named part between each `<!-- generated:NAME -->` and `<!-- end generated -->`.

    Raises ValueError unless every part has one place in all pages together, and every place its part.
    """
    places = [name for text in pages.values() for name in re.findall(r"<!-- generated:(\w+) -->", text)]
    if sorted(places) != sorted(parts):
        raise ValueError(f"{', '.join(pages)} have places for {places}, the parts are {list(parts)}.")
    pattern = r"(<!-- generated:(\w+) -->\n).*?(<!-- end generated -->)"
    return {
        page: re.sub(pattern, lambda found: f"{found[1]}{parts[found[2]]}\n{found[3]}", text, flags=re.DOTALL)
        for page, text in pages.items()
    }


def read_pages() -> dict[str, str]:
    """The pages that hold generated parts, as they are."""
    return {page: (paths.project_root() / page).read_text(encoding="utf-8") for page in PAGES}


if __name__ == "__main__":
    for page, text in fill(read_pages(), parts()).items():
        write_atomically(paths.project_root() / page, text)
    print(f"{', '.join(PAGES)}: filled from results/, notebooks/index.yml and the catalogue of data sets")
