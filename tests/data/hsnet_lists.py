"""The rules behind what fsslib ships: HSNet's lists of (image, class) pairs and its test episodes.

They were read from the code of OSLSM, PFENet and HSNet (juhongm999/hsnet at 6b1bc12, which was run to confirm that all
rows of the 18 frozen manifests are its own) and checked on small copies of 566 images of VOC and 128 of COCO.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from fsslib.data.benchmarks import coco_fold
from fsslib.data.names import COCO_CLASSES
from fsslib.episodes import VOID, EpisodeManifest, EpisodeRow

Pair = tuple[str, int]


def large_classes(labels: Tensor, minimum: int) -> tuple[int, ...]:
    values, counts = labels.unique(return_counts=True)
    return tuple(c for c, n in zip(values.tolist(), counts.tolist()) if c not in (0, VOID) and n >= minimum)


def read_pairs(path: Path) -> tuple[Pair, ...]:
    lines = path.read_text(encoding="utf-8").split()
    return tuple((match[1], int(match[2])) for match in (re.fullmatch(r"(\S+)__(\d+)", line) for line in lines))


def differences(
    pairs: Iterable[Pair], published: Iterable[Pair], images: Collection[str]
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Pairs of these images that only the first list has, and those that only the published one has."""
    ours, theirs = ({pair for pair in side if pair[0] in images} for side in (pairs, published))
    return tuple(sorted(ours - theirs)), tuple(sorted(theirs - ours))


class Draws:
    """HSNet's draws: the global NumPy generator seeded with 0, each draw the head of a shuffle of all candidates.

    `RandomState` is frozen by NumPy's promise, so these are the released test's own draws: its loader runs in the main
    process, is seeded right before the first episode, and nothing else draws there. Supports are drawn with
    replacement: of five shots some are the same image.
    """

    def __init__(self, shots: int, seed: int = 0):
        self.rng, self.shots, self.seed = np.random.RandomState(seed), shots, seed

    def pick(self, items: Sequence):
        return items[int(self.rng.permutation(len(items))[0])]

    def row(self, query: str, c: int, pool: Sequence[str]) -> EpisodeRow:
        supports: list[str] = []
        while len(supports) < self.shots:
            candidate = self.pick(pool)
            supports += [candidate] * (candidate != query)
        return EpisodeRow(query, (c,), (tuple(supports),), repeats=self.shots > 1)

    def manifest(self, rows: Iterable[EpisodeRow], **about: str) -> EpisodeManifest:
        about |= {"protocol": "hsnet", "ways": "1", "shots": str(self.shots), "seed": str(self.seed)}
        return EpisodeManifest(tuple(rows), about)


def hsnet_pascal(pairs: Sequence[Pair], *, fold: int, shots: int, episodes: int = 1000, seed: int = 0):
    """Each pair of the val list in turn is the query, supports are other images of its class in the list."""
    draws, pools = Draws(shots, seed), {}
    for image_id, c in pairs:
        pools.setdefault(c, []).append(image_id)
    queries = (pairs[n % len(pairs)] for n in range(episodes))
    return draws.manifest((draws.row(i, c, pools[c]) for i, c in queries), data="pascal", fold=str(fold))


def hsnet_coco(images: Sequence[Sequence[str]], *, fold: int, shots: int, episodes: int = 1000, seed: int = 0):
    """A class of the fold at random, then its query and supports; `images` are the published lists, class by class."""
    draws, rows = Draws(shots, seed), []
    numbers = [COCO_CLASSES.index(c) for c in coco_fold(fold)]
    for _ in range(episodes):
        number = draws.pick(numbers)
        rows.append(draws.row(draws.pick(images[number]), COCO_CLASSES[number], images[number]))
    return draws.manifest(rows, data="coco", part="val2014", fold=str(fold), rule="interleaved")
