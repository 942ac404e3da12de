"""Benchmarks as their papers cut them: the classes of a fold, and frozen test episodes.

Two papers that say "1,000 episodes of PASCAL-5i" may mean other queries, other supports and other small objects. A
manifest says which, in a text file with a hash. HSNet's, which can be drawn from published lists alone, come with
fsslib (`frozen`); PFENet's need the label maps and are made by `pfenet` where these are.
"""

import random
from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from fsslib.data.names import COCO_CLASSES
from fsslib.episodes import VOID, EpisodeManifest, EpisodeRow
from fsslib.files import DataError
from fsslib.paths import shipped


def pascal_fold(fold: int) -> tuple[int, ...]:
    """The novel classes of a fold of PASCAL-5i, 5 fold + 1 to 5 fold + 5 in VOC's numbers (OSLSM, Shaban et al., 2017).

    Raises DataError for another fold than 0 to 3.
    """
    _check_fold(fold, "PASCAL-5i")
    return tuple(range(5 * fold + 1, 5 * fold + 6))


def coco_fold(fold: int) -> tuple[int, ...]:
    """Global ids of the twenty novel classes of a fold of COCO-20i, every fourth of COCO's from number `fold` on.

    So cut it FWB, PFENet with use_split_coco, HSNet, BAM and most work since. PANet takes numbers 20 fold to 20 fold +
    19: fifteen of its novel classes are training classes here, so scores by the two rules do not compare. Raises
    DataError for another fold than 0 to 3.
    """
    _check_fold(fold, "COCO-20i")
    return COCO_CLASSES[fold::4]


def _check_fold(fold: int, benchmark: str) -> None:
    if fold not in range(4):
        raise DataError(f"{benchmark} has the folds 0, 1, 2 and 3; asked for {fold!r}.")


LARGE = 2048
"""PFENet's and BAM's least area of a class, at the label map's own size: 2 x 32 x 32 pixels.

HSNet's COCO lists follow it too, on label maps in which later objects lie on top (`fsslib.data.coco.paint`). Its PASCAL
lists follow OSLSM's: more than two pixels left of a mask shrunk to 1/32, whatever the object's area."""


def areas(labels: Tensor) -> dict[int, int]:
    """The pixels of each class in a label map [H, W]; background and void are none."""
    classes, counts = labels.unique(return_counts=True)
    return {c: n for c, n in zip(classes.tolist(), counts.tolist()) if c not in (0, VOID)}


def pfenet(
    shown: Mapping[str, Mapping[int, int]],
    classes: Sequence[int],
    *,
    shots: int,
    episodes: int,
    seed: int = 321,
    **about: str,
) -> EpisodeManifest:
    """PFENet's test on the images of a val list in its order, given each image's pixels by class (`areas`).

    Images that show one of `classes` at 2,048 pixels or more are the queries in turn; the class is any of `classes` in
    the query at random, also a smaller one; supports are distinct and show it at 2,048 pixels or more. The papers run
    5,000 episodes on PASCAL-5i and 20,000 on COCO-20i. These are not the release's draws, which depend on the PyTorch
    version and the number of workers, but draws by its rule; its loop also runs one episode more.

    Raises DataError when no image is left, or too few of a class.
    """
    pools = {c: [i for i, found in shown.items() if found.get(c, 0) >= LARGE] for c in classes}
    listed = set().union(*pools.values())
    queries = [i for i in shown if i in listed]
    if not queries:
        raise DataError(
            f"None of these {len(shown)} images shows one of the classes {classes} at 2,048 pixels or more. Add images."
        )
    rng, rows = random.Random(f"pfenet-{seed}"), []
    for n in range(episodes):
        query = queries[n % len(queries)]
        held = [c for c in classes if c in shown[query]]
        c = held[int(rng.random() * len(held))]
        if len(pools[c]) - (query in pools[c]) < shots:
            raise DataError(
                f"{shots} supports for {query!r} cannot be drawn from the {len(pools[c])} images of its class. Ask for "
                "fewer shots, or add images."
            )
        supports: list[str] = []
        while len(supports) < shots:
            candidate = pools[c][int(rng.random() * len(pools[c]))]
            if candidate not in (query, *supports):
                supports.append(candidate)
        rows.append(EpisodeRow(query, (c,), (tuple(supports),)))
    about |= {"protocol": "pfenet", "ways": "1", "shots": str(shots), "seed": str(seed)}
    return EpisodeManifest(tuple(rows), about)


def frozen(data: str, protocol: str, *, shots: int, fold: int | None = None) -> EpisodeManifest:
    """The test episodes that come with fsslib for a benchmark. Raises DataError listing those there are."""
    folder, of = shipped("data") / "manifests", "" if fold is None else f"-fold{fold}"
    path = folder / f"{data}{of}-1way-{shots}shot-{protocol}.txt"
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in folder.glob("*.txt")))
        raise DataError(
            f"No frozen episodes {path.name}; there are {there}. PFENet's are made from label maps, by "
            "fsslib.data.benchmarks.pfenet."
        )
    return EpisodeManifest.load(path)


def present(manifest: EpisodeManifest, ids: Collection[str]) -> EpisodeManifest:
    """The episodes whose images are all among `ids`; the header says how many of them there are.

    A score on some of the episodes is none of the benchmark's. Raises DataError when there is no such episode.
    """
    ids = set(ids)
    rows = tuple(r for r in manifest.rows if ids.issuperset((r.query, *(i for way in r.supports for i in way))))
    if not rows:
        row = manifest.rows[0]
        raise DataError(
            f"None of the {len(manifest.rows)} episodes has all its images among these {len(ids)}; the first is about "
            f"{row.query!r}. The ids are of another data set or part, or too few images are there."
        )
    return EpisodeManifest(rows, {**manifest.about, "present": f"{len(rows)} of {len(manifest.rows)} episodes"})
