"""The tables of results, made from `results/*.json` and nothing else; `python -m fsslib.reproduction.tables` puts them
into README and the pages of docs/.
"""

import json
import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import yaml

from fsslib import paths
from fsslib.data.catalogue import CATALOGUE
from fsslib.episodes import write_atomically
from fsslib.reproduction.claims import claims_summary
from fsslib.reproduction.method_tables import (
    baseline_differences,
    baseline_scores,
    laptop_scores,
    laptop_street_scores,
)
from fsslib.reproduction.plans import read_rows
from fsslib.reproduction.street_tables import (
    camvid_differences,
    camvid_scores,
    from_streets_scores,
    pixda_differences,
    pixda_scores,
)
from fsslib.reproduction.table import DOMAINS, Table, Unit, by_unit, cell, circumstances, differences, in_domains

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
        f"{circumstances(runs)}",
    )


_FLOORS = {"everything": "everything marked", "every_object": "every object marked"}


def floor(runs: Sequence[Mapping[str, Any]], key: str) -> dict[Unit, float]:
    """What an answer that ignores the support scores, by fold: the same for all runs with the same questions."""
    return {(run["config"]["fold"], 0): 100 * run["floors"][key] for run in runs if run["floors"][key] is not None}


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
        f"train the same number of steps, but for one baseline, {_more_of_the_baseline(runs)}. {circumstances(runs)}",
    )


def _more_of_the_baseline(runs: Sequence[Mapping[str, Any]]) -> str:
    said = "which has more for about as many seconds as the whole method"
    labels = ("BS, equal seconds", "all")
    found = [[run for run in runs if run["label"] == label] for label in labels]
    if not all(found):
        return said
    steps = median(run["training"]["steps"] for run in found[0])
    more, whole = (median(run["training"]["seconds"] for run in of) for of in found)
    return f"{said} ({steps:.0f} steps; medians of these runs: {more:.0f} and {whole:.0f} s)"


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
        f"{circumstances(runs)}",
    )


def rtd_real_scores(runs: Sequence[Mapping[str, Any]]) -> Table:
    """RtD on photographs: three rows, the untrained network, and the floor."""
    marked = {domain: {(0, 0): 100 * runs[0]["floors"]["by_domain"][domain]} for domain in PHOTOS}
    labels = [label for label in ("untrained", "BS", "MEnS+MEnT", "all") if any(r["label"] == label for r in runs)]
    return Table(
        "Photographs, Remember the Difference, 1-shot mIoU, trained on PASCAL and COCO",
        ("", *PHOTOS),
        (
            ("everything marked", *(cell(marked[domain]) for domain in PHOTOS)),
            *((label, *(cell(by_unit(runs, label, domain)) for domain in PHOTOS)) for label in labels),
        ),
        "ResNet-18 to layer3 with ImageNet weights, PASCAL's fold 3 held out; photo asks for that fold, magnetic_tile "
        "for break, fray and uneven (at 320 pixels, support and query from different tiles, of which there are few), "
        "camvid for sky, road, pavement, tree, building and fence (support and query from different drives). Blowhole "
        f"and crack are left out: they cover about one cell of the feature grid. {circumstances(runs)}",
    )


def rtd_real_differences(runs: Sequence[Mapping[str, Any]]) -> Table:
    """What the memory adds on photographs."""
    return differences(runs, [("MEnS+MEnT", "BS"), ("all", "BS")], in_domains(PHOTOS))


PHOTOS = ("photo", "magnetic_tile", "camvid")


def untrained_scores(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Prototypes without training on every real data set at hand."""
    rows = []
    for source in dict.fromkeys(run["config"]["source"] for run in runs):
        here = [run for run in runs if run["config"]["source"] == source]
        marked = {(0, run["config"]["seed"]): 100 * run["floors"]["by_domain"][source] for run in here}
        scores = (cell(by_unit(here, label, source)) for label in ("random weights", "ImageNet weights"))
        rows.append((source, str(len(here[0]["classes"]["test"])), cell(marked), *scores))
    return Table(
        "Real data sets without any training, 1-shot mIoU of prototypes, ResNet-18",
        ("", "classes", "everything marked", "random weights", "ImageNet weights"),
        tuple(rows),
        "Masked average pooling on layer2 and layer3 at 256 pixels; every class that 5 images show large enough. These "
        "are small subsets: suim, fss1000 and kvasir have 5 to 8 images, whose scores say that the reader works and "
        "little more. In brackets Student's 95 % interval over five draws of the episodes, each with its own random "
        f"weights. {circumstances(runs)}",
    )


TABLES = {
    "sg_one_toy": (toy_scores, toy_differences),
    "sg_one_voc": (voc_scores,),
    "laptop": (laptop_scores, laptop_street_scores),
    "baselines_toy": (baseline_scores, baseline_differences),
    "rtd_ablation_toy": (rtd_scores, rtd_differences),
    "rtd_ablation_real": (rtd_real_scores, rtd_real_differences),
    "pixda_ladder_toy": (pixda_scores, pixda_differences),
    "pixda_camvid": (camvid_scores, camvid_differences),
    "pixda_streets_camvid": (from_streets_scores,),
    "untrained_real": (untrained_scores,),
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
        f"Median and range of the turns the two took in one run; memory is what the work takes beyond what its process "
        f"held before. Toy images drawn a second at 64 x 64 by "
        f"{found['cores']} processes: {rates}. {found['cores']} cores of {found['processor']}, "
        f"{'with' if found['bf16_instructions'] else 'without'} bfloat16 instructions; "
        f"torch {found['versions']['torch']}.",
    )


def networks() -> Table:
    """What an answer of each method costs, by `make bench`."""
    found = json.loads((paths.shipped("results") / "bench.json").read_text(encoding="utf-8"))
    rows = [
        (
            row["title"],
            row["backbone"],
            f"{row['learnable'] / 1e6:.2f} of {row['parameters'] / 1e6:.2f}",
            f"{row['macs'] / 1e9:.1f}",
            f"{row['per_second']:.2f}",
            "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:.2f}",
        )
        for row in found["networks"]
    ]
    return Table(
        f"What an answer costs at {found['network_size']} pixels",
        ("", "backbone", "million parameters that learn", "billion multiplications", "answers a second", "GiB held"),
        tuple(rows),
        "One 1-way 1-shot episode at a time, two images; PixDA segments one image and needs no support. "
        "Multiplications are those of convolutions and matrix products, each with an addition. In float32; memory is "
        f"the whole process's at its peak. {found['cores']} cores of {found['processor']}; "
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
        found["bench"] = [bench(), networks()]
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
        cells = (link, row["kind"], row["minutes"], ", ".join(row["datasets"]) or "–", before)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def data_sets() -> str:
    """The real data sets as a Markdown table, from the catalogue."""
    lines = ["| name | data set | download | licence | behind which numbers |", "|---|---|---|---|---|"]
    for entry in CATALOGUE.values():
        if entry.folder:
            title = f"[{entry.title}]({entry.home}): {entry.about}"
            lines.append("| " + " | ".join((entry.name, title, entry.size, entry.licence, entry.papers)) + " |")
    return "\n".join(lines)


def parts() -> dict[str, str]:
    """What the pages are filled with: the notebook index, the data sets, the claims and the tables of each plan."""
    return {"notebooks": notebook_index(), "data": data_sets(), "claims": claims_summary().markdown()} | {
        name: "\n\n".join(table.markdown() for table in group) for name, group in tables().items()
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
