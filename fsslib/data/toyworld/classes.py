"""The 25 classes of the toy world: ten silhouettes and ten textures, each shared by two or three classes.

Neither a silhouette nor a texture identifies a class, only the pair does; colour, pose, size, light and background
never do. Class k (0..24) has silhouette k mod 10 and texture (3k + k div 10) mod 10, so that the five classes of a fold
share nothing, while every silhouette and texture of a tested class is also met in training, on other classes.
"""

from fsslib.data.toyworld.surfaces import SILHOUETTES, TEXTURES

FIRST_ID = 1001
"""Class ids are global over data sets; 1001 to 1025 are the toy world's."""

TEST_FOLDS = (0, 1, 2, 3)
DEVELOPMENT_FOLD = 4

_SHAPES, _TEXTURES = list(SILHOUETTES), list(TEXTURES)
SILHOUETTE_OF = tuple(k % 10 for k in range(25))
TEXTURE_OF = tuple((3 * k + k // 10) % 10 for k in range(25))
CLASS_NAMES = {FIRST_ID + k: f"{_TEXTURES[TEXTURE_OF[k]]} {_SHAPES[SILHOUETTE_OF[k]]}" for k in range(25)}


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
