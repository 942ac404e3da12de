"""The tables that hold every method beside the others: what a laptop trains, and the baselines in the toy world."""

from collections.abc import Mapping, Sequence
from typing import Any

from fsslib.reproduction.claims import results_of
from fsslib.reproduction.street_tables import rare_by_unit
from fsslib.reproduction.table import DOMAINS, Table, by_unit, cell, circumstances, differences

Runs = Sequence[Mapping[str, Any]]


def laptop_scores(runs: Runs) -> Table:
    """The few-shot methods of the plan `laptop`: how long a run takes, and its scores at home and abroad."""
    few_shot = [run for run in runs if run["config"]["data"] == "toy"]
    return Table(
        "Toy world, fold 0, 1-shot mIoU on held-out classes, trained in photo",
        ("", "seconds", *DOMAINS),
        tuple(
            (label, _seconds(few_shot, label), *(cell(by_unit(few_shot, label, domain)) for domain in DOMAINS))
            for label in _labels(few_shot)
        ),
        "Mean of three seeds (one where nothing is trained), which are points and no verdict. Seconds are those of the "
        "fastest of them, training on one core and the test in all four domains together. "
        f"{circumstances(few_shot)}",
    )


def laptop_street_scores(runs: Runs) -> Table:
    """The rows of the plan `laptop` that adapt a segmenter to other streets."""
    streets = [run for run in runs if run["config"]["data"] == "streets"]
    return Table(
        "Toy streets, from a game to four towns with five labelled images of each, mIoU",
        ("", "seconds", "game", "cities", "cities, rare classes"),
        tuple(
            (
                label,
                _seconds(streets, label),
                *(cell(by_unit(streets, label, domain)) for domain in ("game", "cities")),
                cell(rare_by_unit(streets, label, "cities")),
            )
            for label in _labels(streets)
        ),
        f"Mean of three seeds, as above. {circumstances(streets)}",
    )


def _labels(runs: Runs) -> list[str]:
    return list(dict.fromkeys(run["label"] for run in runs))


def _seconds(runs: Runs, label: str) -> str:
    """Of the fastest run: on a machine that does other things too, the one that tells most about the method.

    Earlier records of a run that was interrupted have the `seconds` of its last part, the training's are all: not of
    those.
    """
    own = [run for run in runs if run["label"] == label]
    whole = [run["seconds"] for run in own if run["seconds"] >= run["training"]["seconds"]]
    return f"{min(whole):.0f}" if whole else "–"


def baseline_scores(runs: Runs) -> Table:
    """The baselines of `baselines_toy`, with the rows of `sg_one_toy` that they are read against."""
    return Table(
        "Toy world, the baselines, 1-shot mIoU on held-out classes, trained in photo",
        ("", "runs", *DOMAINS),
        tuple(
            (label, str(len(by_unit(rows, label, "photo"))), *(cell(by_unit(rows, label, d)) for d in DOMAINS))
            for rows in (_against(), runs)
            for label in _labels(rows)
        ),
        "The same questions, start weights and numbers of steps for all. PFENet and HSNet leave the backbone as it is. "
        f"{circumstances(runs)}",
    )


def baseline_differences(runs: Runs) -> Table:
    """Each baseline against the trained prototypes."""
    return differences([*_against(), *runs], [(label, "prototypes trained") for label in _labels(runs)])


def _against() -> Runs:
    return [row for row in results_of("sg_one_toy") if row["label"] in ("prototypes trained", "SG-One")]
