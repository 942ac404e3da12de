"""The classes of the toy world: pairs of one of ten silhouettes and one of ten textures, which are shared.

Neither a silhouette nor a texture identifies a class, only the pair does; colour, pose, size, light and background
never do. Of the hundred pairs 25 are the folds' classes, which lessons and tables use: class k (0..24) has silhouette
k mod 10 and texture (3k + k div 10) mod 10, so that the five classes of a fold share nothing, while every silhouette
and texture of a tested class is also met in training, on other classes.

A verdict needs more classes, and such as no other unit is asked for: the splits.
"""

import functools
import random
from collections.abc import Sequence
from itertools import product

from fsslib.data.toyworld.surfaces import SILHOUETTES, TEXTURES

FIRST_ID = 1001
"""Class ids are global over data sets; 1001 to 1025 are the toy world's."""

TEST_FOLDS = (0, 1, 2, 3)
DEVELOPMENT_FOLD = 4

_SHAPES, _TEXTURES = list(SILHOUETTES), list(TEXTURES)
FOLD_PAIRS = tuple((k % 10, (3 * k + k // 10) % 10) for k in range(25))
PAIRS = (*FOLD_PAIRS, *(pair for pair in product(range(10), repeat=2) if pair not in FOLD_PAIRS))
"""Silhouette and texture of every class, by its number from 0."""

SILHOUETTE_OF, TEXTURE_OF = zip(*PAIRS)
ALL_NAMES = {FIRST_ID + k: f"{_TEXTURES[texture]} {_SHAPES[shape]}" for k, (shape, texture) in enumerate(PAIRS)}
CLASS_NAMES = {c: ALL_NAMES[c] for c in range(FIRST_ID, FIRST_ID + len(FOLD_PAIRS))}
"""Those of the folds, of which the lessons speak."""

SPLITS = 12


def fold_classes(fold: int) -> tuple[int, ...]:
    """The five class ids of a fold: 0 to 3 are tested in turn, 4 is for development (every choice is made there)."""
    if fold not in (*TEST_FOLDS, DEVELOPMENT_FOLD):
        raise ValueError(
            f"The toy world has folds 0 to 3 (tested in turn) and 4 (for development); found fold {fold!r}."
        )
    return tuple(range(FIRST_ID + 5 * fold, FIRST_ID + 5 * fold + 5))


def base_classes(fold: int) -> tuple[int, ...]:
    """The 15 training classes when `fold` is held out: the other test folds; for the development fold, folds 0 to 2."""
    held_out = fold if fold_classes(fold) and fold != DEVELOPMENT_FOLD else 3
    return tuple(c for f in TEST_FOLDS if f != held_out for c in fold_classes(f))


Pair = tuple[int, int]


def split_classes(split: int) -> tuple[int, ...]:
    """The five tested class ids of a split, 0 to 11: no part twice, none of them in a fold or in another split."""
    return _splits()[_known(split)][0]


def split_base_classes(split: int) -> tuple[int, ...]:
    """The 15 training classes of a split: out of all but its own and the development fold's.

    Each silhouette and texture is in at most three of them, those of the tested classes in at least one; no class is
    trained on in more than three splits. A class that is tested in another split may be trained on in this one.
    """
    return _splits()[_known(split)][1]


def _known(split: int) -> int:
    if split not in range(SPLITS):
        raise ValueError(f"The toy world has splits 0 to {SPLITS - 1}; found split {split!r}.")
    return split


@functools.cache
def _splits() -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    rng = random.Random("splits")
    left, tested = list(PAIRS[len(FOLD_PAIRS) :]), []
    for _ in range(SPLITS):
        tested.append(_drawn(rng, left, 5, most=1))
        left = [pair for pair in left if pair not in tested[-1]]
    development, uses, splits = PAIRS[20:25], dict.fromkeys(PAIRS, 0), []
    for own in tested:
        pool = [pair for pair in PAIRS if pair not in (*own, *development) and uses[pair] < 3]
        crossed: list[Pair] = []
        while len(set(crossed) & set(pool)) < len(own):  # each tested silhouette with another tested class's texture
            order = _shuffled(rng, own)
            crossed = [(shape, texture) for (shape, _), (_, texture) in zip(order, [*order[1:], order[0]])]
        base = _drawn(rng, pool, 15, most=3, beside=crossed)
        uses |= {pair: uses[pair] + 1 for pair in base}
        splits.append(tuple(tuple(sorted(FIRST_ID + PAIRS.index(pair) for pair in pairs)) for pairs in (own, base)))
    return tuple(splits)


def _shuffled(rng: random.Random, pairs: Sequence[Pair]) -> list[Pair]:
    # From `random()` alone: the only draw Python promises never to change.
    order = {pair: rng.random() for pair in pairs}
    return sorted(pairs, key=order.__getitem__)


def _drawn(
    rng: random.Random, pairs: Sequence[Pair], count: int, *, most: int, beside: Sequence[Pair] = ()
) -> list[Pair]:
    """`count` of the pairs with each silhouette and each texture at most so often, those in `beside` among them."""
    drawn = list(beside)
    for pair in _shuffled(rng, [pair for pair in pairs if pair not in beside]):
        if len(drawn) < count and all(sum(other[part] == pair[part] for other in drawn) < most for part in (0, 1)):
            drawn.append(pair)
    return drawn
