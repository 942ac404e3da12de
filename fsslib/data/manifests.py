"""Frozen test episodes of the benchmarks, by the sampling rules of HSNet and PFENet.

Two papers that say "1,000 episodes of PASCAL-5i" may mean other queries, other supports and other small objects. A
manifest says which, in a text file with a hash. Those that can be drawn from published lists alone come with fsslib
(`frozen`); PFENet's need the label maps and are made by `pfenet` where these are.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from fsslib.data.images import DataError
from fsslib.data.splits import BY_AREA, COCO_CLASSES, Pair, coco_fold, fss_part, pascal_fold
from fsslib.episodes import EpisodeManifest, EpisodeRow
from fsslib.paths import shipped


def _supports(pick: Callable[[int], int], pool: Sequence[str], query: str, shots: int, *, repeats: bool) -> tuple:
    if len(pool) - (query in pool) < (1 if repeats else shots):
        raise DataError(f"{shots} supports for {query!r} cannot be drawn from the {len(pool)} images of its class.")
    found: list[str] = []
    while len(found) < shots:
        candidate = pool[pick(len(pool))]
        if candidate != query and (repeats or candidate not in found):
            found.append(candidate)
    return tuple(found)


class _HSNetDraws:
    """HSNet's draws: the global NumPy generator seeded with 0, each draw the head of a shuffle of all candidates.

    `RandomState` is frozen by NumPy's promise, so these are the released test's own draws: its loader runs in the main
    process, is seeded right before the first episode, and nothing else draws there. It was run to confirm that
    (juhongm999/hsnet at 6b1bc12): all rows of the 18 frozen manifests are its own.
    """

    def __init__(self, shots: int, seed: int):
        self.rng, self.shots, self.seed = np.random.RandomState(seed), shots, seed

    def pick(self, count: int) -> int:
        """A number below `count`. Raises DataError for 0: a class that has no image."""
        if not count:
            raise DataError("A class of the fold has no image to draw a query from.")
        return int(self.rng.permutation(count)[0])

    def row(self, query: str, c: int, pool: Sequence[str]) -> EpisodeRow:
        supports = _supports(self.pick, pool, query, self.shots, repeats=True)
        return EpisodeRow(query, (c,), (supports,), repeats=self.shots > 1)

    def manifest(self, rows: Iterable[EpisodeRow], **about: str) -> EpisodeManifest:
        about |= {"protocol": "hsnet", "ways": "1", "shots": str(self.shots), "seed": str(self.seed)}
        return EpisodeManifest(tuple(rows), about)


def hsnet_pascal(
    pairs: Sequence[Pair], *, fold: int, shots: int, episodes: int = 1000, seed: int = 0
) -> EpisodeManifest:
    """HSNet's test on a fold of PASCAL-5i: each pair of the val list in turn is the query, supports are other images of
    its class in the list, drawn with replacement: of five shots some are the same image.

    The draws are those of the release (see `_HSNetDraws`) when `pairs` are the fold's published list in its order,
    which is that of `list_text`. Pairs of other classes are left alone; raises DataError when none is of the fold.
    """
    draws, pools = _HSNetDraws(shots, seed), {c: [i for i, of in pairs if of == c] for c in pascal_fold(fold)}
    pairs = [pair for pair in pairs if pair[1] in pools]
    if not pairs:
        raise DataError(f"None of the pairs is of a class of fold {fold} of PASCAL-5i: {sorted(pools)}.")
    queries = (pairs[n % len(pairs)] for n in range(episodes))
    return draws.manifest((draws.row(i, c, pools[c]) for i, c in queries), data="pascal", fold=str(fold))


def hsnet_coco(
    images: Sequence[Sequence[str]], *, fold: int, shots: int, episodes: int = 1000, seed: int = 0
) -> EpisodeManifest:
    """HSNet's test on a fold of COCO-20i: a class of the fold at random, then its query and supports, with replacement.

    `images` are the val2014 images of COCO's 80 classes in the order of the published lists, which is neither sorted
    nor that of the JSON: with another order these are other draws by the same rule. Ids are file names without ending.
    """
    draws, rows = _HSNetDraws(shots, seed), []
    numbers = [COCO_CLASSES.index(c) for c in coco_fold(fold)]
    for _ in range(episodes):
        number = numbers[draws.pick(len(numbers))]
        query = images[number][draws.pick(len(images[number]))]
        rows.append(draws.row(query, COCO_CLASSES[number], images[number]))
    return draws.manifest(rows, data="coco", part="val2014", fold=str(fold), rule="interleaved")


def hsnet_fss(*, shots: int, seed: int = 0) -> EpisodeManifest:
    """HSNet's test on FSS-1000: each of the ten images of the 240 test classes once, supports with replacement.

    Classes in alphabetical order, images in that of their file names (1, 10, 2 ...). The draws are the release's on a
    folder without strays named *.jpg.
    """
    draws, rows = _HSNetDraws(shots, seed), []
    for name, c in fss_part("test").items():
        pool = [f"{name}/{number}" for number in range(1, 11)]
        rows += [draws.row(query, c, pool) for query in sorted(pool)]
    return draws.manifest(rows, data="fss_1000", part="test")


def pfenet(
    areas: Mapping[str, Mapping[int, int]],
    classes: Sequence[int],
    *,
    shots: int,
    episodes: int,
    seed: int = 321,
    **about: str,
) -> EpisodeManifest:
    """PFENet's test on the images of a val list in its order, given each image's pixels by class (`BY_AREA.counts`).

    Images that show one of `classes` at 2,048 pixels or more are the queries in turn; the class is any of `classes` in
    the query at random, also a smaller one; supports are distinct and show it at 2,048 pixels or more. The papers run
    5,000 episodes on PASCAL-5i and 20,000 on COCO-20i. These are not the release's draws, which depend on the PyTorch
    version and the number of workers, but draws by its rule; its loop also runs one episode more.

    Raises DataError when no image is left, or too few of a class.
    """
    pools = {c: [i for i, found in areas.items() if found.get(c, 0) >= BY_AREA.minimum] for c in classes}
    listed = set().union(*pools.values())
    queries = [i for i in areas if i in listed]
    if not queries:
        raise DataError(
            f"None of these {len(areas)} images shows one of the classes {classes} at 2,048 pixels or more."
        )
    rng, rows = random.Random(f"pfenet-{seed}"), []
    for n in range(episodes):
        query = queries[n % len(queries)]
        shown = [c for c in classes if c in areas[query]]
        c = shown[int(rng.random() * len(shown))]
        supports = _supports(lambda count: int(rng.random() * count), pools[c], query, shots, repeats=False)
        rows.append(EpisodeRow(query, (c,), (supports,)))
    about |= {"protocol": "pfenet", "ways": "1", "shots": str(shots), "seed": str(seed)}
    return EpisodeManifest(tuple(rows), about)


def manifest_name(data: str, protocol: str, *, shots: int, fold: int | None = None) -> str:
    """The file name of a frozen manifest: "pascal-fold0-1way-1shot-hsnet.txt"; FSS-1000 has no fold."""
    return "-".join([data, *([] if fold is None else [f"fold{fold}"]), "1way", f"{shots}shot", protocol]) + ".txt"


def frozen(data: str, protocol: str, *, shots: int, fold: int | None = None) -> EpisodeManifest:
    """The test episodes that come with fsslib for a benchmark. Raises DataError listing those there are."""
    folder = shipped("data") / "manifests"
    path = folder / manifest_name(data, protocol, shots=shots, fold=fold)
    if not path.is_file():
        there = ", ".join(sorted(file.name for file in folder.glob("*.txt")))
        raise DataError(
            f"No frozen episodes {path.name}; there are {there}. PFENet's are made from label maps, by "
            "fsslib.data.manifests.pfenet."
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
