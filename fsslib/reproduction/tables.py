"""Tables of results, made from `results/*.json` and nothing else; `python -m fsslib.reproduction.tables` puts them into
README.

A row is a label of a plan, a column a domain or a fold. Numbers are mIoU in percent: the mean over the runs, and
Student's 95 % interval over (fold, seed) where there are five runs or more.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fsslib import paths
from fsslib.episodes import write_atomically
from fsslib.reproduction.plans import read_rows
from fsslib.reproduction.statistics import Interval, holm, paired_difference, student_interval

Unit = tuple[int, int]
"""Fold and seed: one trained network."""


@dataclass(frozen=True)
class Table:
    """A table with a title and a note on how to read it; all cells are text."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str

    def markdown(self) -> str:
        lines = [self.head, ["---"] + ["---:"] * (len(self.head) - 1), *self.rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"**{self.title}**\n\n{body}\n\n{self.note}"

    def html(self) -> str:
        def row(cells, tag):
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self.rows)
        return (
            f"<figure class='table'><table><caption>{html.escape(self.title)}</caption>"
            f"<thead>{row(self.head, 'th')}</thead><tbody>{body}</tbody></table>"
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


DOMAINS = ("photo", "underwater", "night", "sketch")


_LABELS = (
    "prototypes, random weights",
    "prototypes untrained",
    "prototypes trained",
    "SG-One, random weights",
    "SG-One",
)


def toy_scores(runs: Sequence[Mapping[str, Any]]) -> Table:
    """SG-One, prototypes and the world's own floors and ceiling, by domain."""
    ceiling = {d: by_unit(runs, "SG-One" if d == "photo" else f"SG-One trained in {d}", d) for d in DOMAINS}
    rows = [
        *((title, *[cell(floor(runs, key))] * len(DOMAINS)) for key, title in _FLOORS.items()),
        *((label, *(cell(by_unit(runs, label, d)) for d in DOMAINS)) for label in _LABELS),
        ("SG-One trained in the domain itself", *(cell(ceiling[d]) for d in DOMAINS)),
    ]
    return Table(
        "Toy world, 1-shot mIoU on held-out classes, trained in photo",
        ("", *DOMAINS),
        tuple(rows),
        "Folds 0 to 3; 3 seeds a fold, or 1 where no interval is given. In brackets Student's 95 % interval over the "
        "runs. Where nothing else is said, networks start from weights trained on the fold's base classes in photo. "
        "The first two rows ignore the support: they mark every pixel, and every object with its exact outline. "
        f"{_circumstances(runs)}",
    )


_FLOORS = {"everything": "everything marked", "every_object": "every object marked"}


def floor(runs: Sequence[Mapping[str, Any]], key: str) -> dict[Unit, float]:
    """What an answer that ignores the support scores, by fold: the same for all runs with the same questions."""
    return {(run["config"]["fold"], 0): 100 * run["floors"][key] for run in runs if run["floors"][key] is not None}


def differences(runs: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]]) -> Table:
    """The first label of each pair against the second, paired by fold and seed, p values corrected over the domains."""
    rows = []
    for label, baseline in pairs:
        paired: dict[str, Interval] = {}
        for domain in DOMAINS:
            ours, theirs = by_unit(runs, label, domain), by_unit(runs, baseline, domain)
            units = set(ours) & set(theirs)
            if units:
                paired[domain] = paired_difference({u: ours[u] for u in units}, {u: theirs[u] for u in units})
        corrected = holm({d: i.p for d, i in paired.items() if i.p is not None})
        rows.append(
            (
                f"{label} minus {baseline}",
                *(
                    f"{paired[d]}" + (f", {_p(corrected[d])}" if d in corrected else "") if d in paired else "–"
                    for d in DOMAINS
                ),
            )
        )
    return Table(
        "Differences, paired by fold and seed",
        ("", *DOMAINS),
        tuple(rows),
        "Points of mIoU with Student's 95 % interval; p values are Holm-corrected over the four domains.",
    )


def _p(value: float) -> str:
    return f"p {value:.3f}" if value >= 0.001 else "p < 0.001"


def toy_differences(runs: Sequence[Mapping[str, Any]]) -> Table:
    """SG-One against the trained prototypes."""
    return differences(runs, [("SG-One", "prototypes trained")])


def rtd_scores(runs: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of RtD's ablation and its controls, by domain."""
    labels = list(dict.fromkeys(run["label"] for run in runs))
    units = {unit for label in labels for unit in by_unit(runs, label, "photo")}
    return Table(
        "Toy world, Remember the Difference, 1-shot mIoU on held-out classes, trained in photo",
        ("", *DOMAINS),
        tuple((label, *(cell(by_unit(runs, label, d)) for d in DOMAINS)) for label in labels),
        f"{len({fold for fold, _ in units})} folds, up to {len({seed for _, seed in units})} seeds. BS is the "
        "prototype network, Cons adds the contrastive loss, MEnS and MEnT the memory on the source and on the target. "
        "In the controls a random item replaces the chosen one, or another image of the batch the memory. All rows "
        "train the same number of steps, but for the baseline that has as many seconds as the whole method. "
        f"{_circumstances(runs)}",
    )


def rtd_differences(runs: Sequence[Mapping[str, Any]]) -> Table:
    """What each part adds, and whether the memory is more than noise."""
    against_baseline = [(label, "BS") for label in ("Cons", "Cons+MEnS", "MEnS+MEnT", "all")]
    controls = ("BS, equal seconds", "control: random items", "control: mixing samples")
    return differences(runs, [*against_baseline, *(("all", control) for control in controls)])


def voc_scores(runs: Sequence[Mapping[str, Any]]) -> Table:
    """PASCAL VOC by fold, and the reference over all usable classes."""
    folds = sorted({run["config"]["fold"] for run in runs if run["config"]["data"] == "pascal"})

    def of_fold(label, fold):
        return {u: v for u, v in by_unit(runs, label, "photo").items() if u[0] == fold}

    labels = list(dict.fromkeys(run["label"] for run in runs))
    of_folds = [run for run in runs if run["config"]["data"] == "pascal"]
    of_all = [run for run in runs if run["config"]["data"] != "pascal"]
    rows = []
    for key, title in _FLOORS.items():
        marked = floor(of_folds, key)
        every = [{u: v for u, v in marked.items() if u[0] == fold} for fold in folds]
        rows.append((title, *(cell(part) for part in every), cell(marked), cell(floor(of_all, key))))
    for label in labels:
        if any(run["label"] == label and run["config"]["data"] == "pascal" for run in runs):
            every = [of_fold(label, fold) for fold in folds]
            pooled = {u: v for part in every for u, v in part.items()}
            rows.append((label, *(cell(part) for part in every), cell(pooled), "–"))
        else:
            rows.append((label, *("–" for _ in folds), "–", cell(by_unit(runs, label, "photo"))))
    return Table(
        "PASCAL VOC 2012 subset, 1-shot mIoU on held-out classes, ResNet-18 with a frozen backbone",
        ("", *(f"fold {fold}" for fold in folds), "mean of the runs", "12 classes"),
        tuple(rows),
        "One run a fold, which is too few for an interval; three with random weights. SG-One is trained on the images "
        "that show no class of the fold. The 12 classes are those with 20 images or more, none of them trained on. The "
        "first two rows ignore the support: they mark every pixel, and every object with its exact outline. "
        f"{_circumstances(runs)}",
    )


def _circumstances(runs: Sequence[Mapping[str, Any]]) -> str:
    """Hardware, versions and episodes, as far as the runs agree on them."""
    environments = [run["environment"] for run in runs]
    devices = sorted({e["device_name"] for e in environments})
    versions = sorted({e["versions"]["torch"] or "?" for e in environments})
    episodes = sorted({s["episodes"] for run in runs for s in run["scores"].values()})
    return f"{' and '.join(map(str, episodes))} episodes a run; {', '.join(devices)}; torch {', '.join(versions)}."


TABLES = {
    "sg_one_toy": (toy_scores, toy_differences),
    "sg_one_voc": (voc_scores,),
    "rtd_ablation_toy": (rtd_scores, rtd_differences),
}


def bench() -> Table:
    """What `make bench` measured."""
    found = json.loads((paths.shipped("results") / "bench.json").read_text(encoding="utf-8"))
    rows = []
    for case in found["cases"]:
        low, high = case["ratio_range"]
        peaks = [case[f"{way}_peak_bytes"] for way in ("baseline", "contender")]
        rows.append(
            (
                case["name"],
                f"{case['contender']} / {case['baseline']}",
                f"{case['ratio']:.1f} ({low:.1f} to {high:.1f})",
                case["goal"] or "–",
                "–" if None in peaks else f"{peaks[1] / peaks[0]:.2f}",
            )
        )
    rates = ", ".join(f"{domain} {rate:,.0f}" for domain, rate in found["drawing_images_per_second"].items())
    return Table(
        "How much faster the second way is",
        ("", "compared", "speed ratio", "wanted", "peak memory ratio"),
        tuple(rows),
        f"Median and range of the turns the two took in one run. Toy images drawn a second at 64 x 64 by "
        f"{found['cores']} processes: {rates}. {found['cores']} cores of {found['processor']}, "
        f"{'with' if found['bf16_instructions'] else 'without'} bfloat16 instructions; "
        f"torch {found['versions']['torch']}.",
    )


def tables() -> dict[str, list[Table]]:
    """The tables of every results file that is there, by plan."""
    found = {}
    for name, makers in TABLES.items():
        path = paths.shipped("results") / f"{name}.json"
        if path.is_file() and (runs := read_rows(path)):
            found[name] = [make(runs) for make in makers]
    if (paths.shipped("results") / "bench.json").is_file():
        found["bench"] = [bench()]
    return found


def html_tables() -> str:
    """All tables as an HTML fragment."""
    return "\n".join(table.html() for group in tables().values() for table in group)


def notebook_index() -> str:
    """The notebooks as a Markdown table, from `notebooks/index.yml`."""
    folder = paths.shipped("notebooks")
    rows = yaml.safe_load((folder / "index.yml").read_text(encoding="utf-8"))["notebooks"]
    lines = ["| notebook | kind | minutes | data | read before |", "|---|---|---:|---|---|"]
    for row in rows:
        link = f"[{row['file'].removesuffix('.ipynb').replace('_', ' ')}](notebooks/{row['file']})"
        before = ", ".join(str(p).removesuffix(".ipynb")[:2] for p in row["prerequisites"]) or "–"
        cells = (link, row["kind"], row["minutes"], ", ".join(row["datasets"]), before)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def fill(text: str, parts: Mapping[str, str]) -> str:
    """`text` with what stands between `<!-- generated:NAME -->` and `<!-- end generated -->` replaced by the named
    parts.

    Raises ValueError for a part the text has no place for, and for a place without a part.
    """
    places = re.findall(r"<!-- generated:(\w+) -->", text)
    if sorted(places) != sorted(parts):
        raise ValueError(f"The text has places for {places}, the parts are {list(parts)}.")
    for name, part in parts.items():
        pattern = rf"(<!-- generated:{name} -->\n).*?(<!-- end generated -->)"
        text = re.sub(pattern, lambda m, part=part: f"{m[1]}{part}\n{m[2]}", text, flags=re.DOTALL)
    return text


def readme_parts() -> dict[str, str]:
    """What README is filled with: the notebook index and the tables of each plan."""
    return {"notebooks": notebook_index()} | {
        name: "\n\n".join(table.markdown() for table in group) for name, group in tables().items()
    }


if __name__ == "__main__":
    readme = Path(paths.project_root()) / "README.md"
    write_atomically(readme, fill(readme.read_text(encoding="utf-8"), readme_parts()))
    print(f"{readme}: filled from results/ and notebooks/index.yml")
