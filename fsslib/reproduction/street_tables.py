"""The tables of PixDA: its ladder on the toy streets, and what is left of it on filmed ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from fsslib.reproduction.table import Measure, Table, Unit, cell, circumstances, differences, in_domains

RARE = ("pole", "sign", "person", "rider", "pedestrian", "bicyclist")
"""The rarest third of the classes of streets, by share of pixels; the last two are CamVid's names."""


def rare_by_unit(runs: Sequence[Mapping[str, Any]], label: str, domain: str) -> dict[Unit, float]:
    """The mean IoU in percent of the rarest third of the classes, as `by_unit`."""
    found = {}
    for run in runs:
        if run["label"] == label and domain in run["scores"]:
            ious = [iou for name, iou in run["scores"][domain]["per_class"].items() if name in RARE and iou is not None]
            if ious:
                found[run["config"]["fold"], run["config"]["seed"]] = 100 * sum(ious) / len(ious)
    return found


def _street_columns(source: str, target: str) -> dict[str, Measure]:
    return in_domains((source, target)) | {
        f"{target}, rare classes": lambda runs, label: rare_by_unit(runs, label, target)
    }


def pixda_scores(runs: Sequence[Mapping[str, Any]]) -> Table:
    """The ladder: a rung a row, its score in the source, in the target, and on the target's rare classes."""
    return _scores(
        runs,
        _street_columns("game", "cities"),
        "Toy streets, PixDA from the game to four towns, mIoU",
        "K = 5 labelled images of each town where nothing else is said; a seed is also a draw of these. Every rung "
        "makes as many updates of the segmenter; fine-tuning takes a quarter of them. The adversarial rungs divide "
        "their weight map by its mean and stylise the source. The rare classes are pole, sign, person and rider.",
    )


def pixda_differences(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Each rung against the one it is to be judged by."""
    best = "A*S*B + selection"
    pairs = [
        ("joint", "source only"),
        ("joint", "target only"),
        ("joint + stylisation", "joint"),
        *((label, "joint + stylisation") for label in ("patch", "A", "A*B", "A*S", "A*S*B")),
        ("A*S*B", "A"),
        (best, "A*S*B"),
        (f"{best} + batch norm", best),
        (f"{best} + fine-tuning", f"{best} + batch norm"),
        (f"{best} + fine-tuning", "joint + fine-tuning"),
        (f"{best} + distillation", f"{best} + fine-tuning"),
        (f"{best} + distillation", f"{best} + batch norm"),
    ]
    return differences(runs, pairs, _street_columns("game", "cities"))


def camvid_scores(runs: Sequence[Mapping[str, Any]]) -> Table:
    """PixDA from CamVid by day to CamVid at dusk; the row with all labels of dusk is the ceiling."""
    return _scores(
        one_dusk(runs),
        _street_columns("day", "dusk"),
        "CamVid, PixDA from day to dusk, mIoU",
        "ResNet-18 to layer3 with ImageNet weights and fixed batch norms, 120 x 160 pixels, 150 steps. K = 5 labelled "
        "images of dusk, drawn before 0001TP_008220; dusk is tested from 0001TP_008550 on, day on the drive Seq05VD. A "
        "seed is also a draw of the five. The rungs with an adversary stylise the source too, joint does not. The rare "
        "classes are pole, sign, pedestrian and bicyclist.",
    )


def camvid_differences(runs: Sequence[Mapping[str, Any]]) -> Table:
    """What joint training, the adversary and distillation add on filmed streets."""
    ceiling = "joint, all 62 images of dusk"
    pairs = [("joint", "source only"), (ceiling, "joint"), ("A", "joint"), ("A*S*B", "joint"), ("A*S*B", "A")]
    pairs += [(f"A*S*B + {way}", other) for way, other in (("fine-tuning", "A*S*B"), ("distillation", "A*S*B"))]
    pairs.append(("A*S*B + distillation", "A*S*B + fine-tuning"))
    return differences(one_dusk(runs), pairs, _street_columns("day", "dusk"))


def from_streets_scores(runs: Sequence[Mapping[str, Any]]) -> Table:
    """From drawn streets to filmed ones."""
    return _scores(
        runs,
        _street_columns("game", "day"),
        "From the toy streets' game to CamVid by day, mIoU over CamVid's classes",
        "Five labelled images of each of two day drives; tested on the third. Settings as on CamVid. So few runs are "
        "points and no verdict.",
    )


def _scores(runs: Sequence[Mapping[str, Any]], columns: Mapping[str, Measure], title: str, note: str) -> Table:
    labels = dict.fromkeys(run["label"] for run in runs)
    found = {label: [measure(runs, label) for measure in columns.values()] for label in labels}
    rows = tuple((label, str(len(values[0])), *map(cell, values)) for label, values in found.items())
    return Table(title, ("", "runs", *columns), rows, f"{note} {circumstances(runs)}")


def one_dusk(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The runs with the ceiling's target under the name of the others': the test images are the same."""
    return [
        dict(run) | {"scores": {domain.removesuffix("_all"): score for domain, score in run["scores"].items()}}
        for run in runs
    ]
