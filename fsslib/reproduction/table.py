"""What every table of results is made of: scores by run, cells with intervals, paired differences.

A row is a label of a plan, a column a domain or a fold. Numbers are mIoU in percent: the mean over the runs, and
Student's 95 % interval over (fold, seed) where there are five runs or more.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsslib.reproduction.statistics import Interval, holm, paired_difference, student_interval

Unit = tuple[int, int]
"""Fold and seed: one trained network."""

DOMAINS = ("photo", "underwater", "night", "sketch")


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
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines).replace("*", r"\*")  # A*S*B is no emphasis
        return f"**{self.title}**\n\n{body}\n\n{self.note}"

    def html(self) -> str:
        def row(cells, tag):
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self.rows)
        return (
            f"<figure class='table'><h3>{html.escape(self.title)}</h3>"
            f"<table><thead>{row(self.head, 'th')}</thead><tbody>{body}</tbody></table>"
            f"<figcaption>{html.escape(self.note)}</figcaption></figure>"
        )


def by_unit(runs: Sequence[Mapping[str, Any]], label: str, domain: str, key: str = "miou") -> dict[Unit, float]:
    """A score in percent of every run with this label that was tested in this domain."""
    return {
        (run["config"]["fold"], run["config"]["seed"]): 100 * run["scores"][domain][key]
        for run in runs
        if run["label"] == label and domain in run["scores"]
    }


def cell(values: Mapping[Unit, float]) -> str:
    """Mean and interval as text: a dash without runs, the mean alone where there are too few for an interval."""
    if not values:
        return "–"
    interval = student_interval(list(values.values()))
    if interval.low is None:
        return f"{interval.mean:.1f}"
    return f"{interval.mean:.1f} [{interval.low:.1f}, {interval.high:.1f}]"


Measure = Callable[[Sequence[Mapping[str, Any]], str], dict[Unit, float]]
"""The scores of the runs with a label, by unit."""


def in_domains(domains: Sequence[str]) -> dict[str, Measure]:
    """mIoU in each of these domains, as the columns of a table of differences."""
    return {domain: lambda runs, label, domain=domain: by_unit(runs, label, domain) for domain in domains}


def differences(
    runs: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]], columns: Mapping[str, Measure] | None = None
) -> Table:
    """The first label of each pair against the second, paired by unit, p values corrected over the columns."""
    columns = columns or in_domains(DOMAINS)
    rows = []
    for label, baseline in pairs:
        paired: dict[str, Interval] = {}
        for name, measure in columns.items():
            ours, theirs = measure(runs, label), measure(runs, baseline)
            units = set(ours) & set(theirs)
            if units:
                paired[name] = paired_difference({u: ours[u] for u in units}, {u: theirs[u] for u in units})
        corrected = holm({name: i.p for name, i in paired.items() if i.p is not None})
        cells = (
            f"{paired[name]}" + (f", {_p(corrected[name])}" if name in corrected else "") if name in paired else "–"
            for name in columns
        )
        rows.append((f"{label} minus {baseline}", *cells))
    return Table(
        "Differences, paired by fold and seed",
        ("", *columns),
        tuple(rows),
        f"Points of mIoU with Student's 95 % interval; p values are Holm-corrected over the {len(columns)} columns.",
    )


def _p(value: float) -> str:
    return f"p {value:.3f}" if value >= 0.001 else "p < 0.001"


def circumstances(runs: Sequence[Mapping[str, Any]]) -> str:
    """Hardware, versions and episodes, as far as the runs agree on them."""
    environments = [run["environment"] for run in runs]
    devices = sorted({e["device_name"] for e in environments})
    versions = sorted({e["versions"]["torch"] or "?" for e in environments})
    asked = "episodes" if "episodes" in next(iter(runs[0]["scores"].values())) else "test images"
    episodes = sorted({s["episodes" if asked == "episodes" else "images"] for r in runs for s in r["scores"].values()})
    return f"{' and '.join(map(str, episodes))} {asked} a run; {', '.join(devices)}; torch {', '.join(versions)}."
