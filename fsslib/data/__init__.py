"""Data sets, and the task a run poses on one: which classes are trained on, which are tested, and in which domains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsslib.episodes import EpisodeSource

DATA_SETS = {
    "toy": "drawn by the program, nothing to download",
    "pascal": "PASCAL VOC 2012 with PASCAL-5i folds",
    "pascal_all": "PASCAL VOC 2012, every class tested and none trained on: for untrained networks",
}


@dataclass(frozen=True)
class FewShotTask:
    """Train on `train_classes` of `train`, test on `test_classes` of every domain in `tests` (the source first)."""

    train: EpisodeSource
    train_classes: tuple[int, ...]
    tests: Mapping[str, EpisodeSource]
    test_classes: tuple[int, ...]


def open_task(
    data: str = "toy",
    *,
    fold: int = 0,
    source: str = "photo",
    targets: Sequence[str] = (),
    size: int = 64,
    novel_as_background: bool = False,
    device: Any = "cpu",
) -> FewShotTask:
    """The task of a fold. `device` is where the toy world draws.

    "toy": `source` and `targets` are domains of the toy world; the classes of `fold` are held out. "pascal": PASCAL-5i
    below FSSLIB_DATA; it has one domain, so `targets` must be empty and `source` is "photo". Training images that hold
    a held-out class as background are dropped (toy: not drawn) unless `novel_as_background` on the toy world, the
    papers' way.

    Raises ValueError naming what there is for an unknown data set, fold or domain, and when classes leak.
    """
    if data == "toy":
        task = _toy_task(fold, source, targets, size, novel_as_background, device)
    elif data in ("pascal", "pascal_all"):
        task = _pascal_task(data, fold, source, targets, size)
    else:
        raise ValueError(f"Unknown data set {data!r}; there are {', '.join(DATA_SETS)}.")
    if leaked := set(task.train_classes) & set(task.test_classes):
        raise ValueError(f"Classes {sorted(leaked)} are in training and in the test.")
    return task


def _toy_task(fold, source, targets, size, novel_as_background, device) -> FewShotTask:
    from fsslib.data.toyworld import ToyWorld, base_classes, fold_classes

    base, novel = base_classes(fold), fold_classes(fold)

    def world(domain, distractors):
        return ToyWorld(domain, size=size, distractors=distractors, device=device)

    train = world(source, (*base, *novel) if novel_as_background else base)
    tests = {domain: world(domain, base) for domain in dict.fromkeys((source, *targets))}
    return FewShotTask(train, base, tests, novel)


def _pascal_task(data, fold, source, targets, size) -> FewShotTask:
    from fsslib.data.pascal import PascalVOC

    if tuple(targets) or source != "photo":
        raise ValueError(f'PASCAL has the one domain "photo" and no targets; found {source!r} and {tuple(targets)}.')
    voc = PascalVOC(size=size)
    if data == "pascal_all":
        return FewShotTask(voc, (), {"photo": voc}, voc.usable_classes())
    part = voc.fold(fold)
    return FewShotTask(part.train, part.train_classes, {"photo": part.test}, part.test_classes)
