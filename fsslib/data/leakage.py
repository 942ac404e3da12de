"""A check before training: nothing that the test asks for may have been there to learn from."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from fsslib.data.names import ALIASES
from fsslib.data.tasks import AdaptationTask, FewShotTask

CONTAINS: Mapping[str, tuple[str, ...]] = {
    "bicyclist": ("person", "bicycle"),
    "rider": ("person",),
    "sign": ("stop sign",),
}
"""Classes that another data set labels under other names: who was trained on those has seen them.

SUIM's divers are not here: they are "person" itself (`fsslib.data.names.ALIASES`)."""


class LeakageError(ValueError):
    """The test's classes or images are in the training; the message names them and the next step."""


def check_leakage(task: FewShotTask | AdaptationTask, *, novel_as_background: bool = False) -> None:
    """Raise LeakageError when the training of a task could have seen what its tests ask for.

    Few-shot: a test class that is trained on, by its id, by another spelling or data set's name of it, or as a part of
    it (`CONTAINS`); an image that training and test share, which covers the supports and queries of every exam drawn
    from that test; a test class that training images hold as background. The last is how most papers train: keep such
    images with `novel_as_background`, drop them (BAM's way, `LabelledImageSet.without_classes`) without.

    Adaptation, where the classes are the same by design: an image of a test, or of those a checkpoint is chosen on,
    among the source's or the target's training images.

    An image is the same when set and id are, also inside a joined set and under COCO's names of 2014 and 2017. Drawn
    worlds have no list of images: they are made of other seeds for each batch and exam. What a data set holds without
    a label cannot be checked.
    """
    if isinstance(task, AdaptationTask):
        targets = [i for ids in task.target_ids_by_group.values() for i in ids]
        trained = {**_images(task.source, task.source_ids), **_images(task.target, targets)}
        tests = {f"the test in {domain}": images for domain, images in task.tests.items()}
        for what, images in (*tests.items(), ("the choice of a checkpoint", task.held_out)):
            _refuse_images(trained, _images(images.source, images.ids), what)
        return
    if not task.train_classes:
        return
    names = task.train.class_names
    learnt = {_plain(names[c]): names[c] for c in task.train_classes}
    trained = _images(task.train, getattr(task.train, "ids", ()))
    for domain, images in task.tests.items():
        asked = {c: images.class_names[c] for c in task.classes_in(domain)}
        _refuse_classes(learnt, asked.values(), domain)
        _refuse_images(trained, _images(images, getattr(images, "ids", ())), f"the test in {domain}")
        if not novel_as_background:
            _refuse_background(task, asked, domain)


def _plain(name: str) -> str:
    """A class's name as all data sets share it, without regard to case, spaces, underscores and hyphens."""
    spaced = re.sub(r"[\s_-]+", " ", name.strip().lower())
    return ALIASES.get(spaced, spaced).replace(" ", "")


def _refuse_classes(learnt: Mapping[str, str], asked: Iterable[str], domain: str) -> None:
    found = []
    for name in asked:
        parts = [part for whole, parts in CONTAINS.items() if _plain(whole) == _plain(name) for part in parts]
        found += [
            name if learnt[key] == name else f"{name} (trained on as {learnt[key]})"
            for key in map(_plain, (name, *parts))
            if key in learnt
        ]
    if found:
        raise LeakageError(
            f"Classes are in training and in the test in {domain}: {', '.join(found)}. Leave them out of one side."
        )


def _images(source, ids: Iterable[str]) -> dict[str, str]:
    """Images by what they are the same by: the name of their set and their id, without COCO's prefixes of 2014."""
    found = {}
    for image_id in ids:
        # The ids of a joined set begin with the name of the set an image is from.
        for full in (f"{source.name}/{image_id}", *([image_id] if "/" in image_id else [])):
            found[re.sub(r"COCO_(train|val)2014_", "", full)] = image_id
    return found


def _refuse_images(trained: Mapping[str, str], tested: Mapping[str, str], what: str) -> None:
    if shared := sorted({trained[key] for key in trained.keys() & tested.keys()}):
        raise LeakageError(
            f"{_some(shared)} of the training images are in {what} too. Part the lists: `restricted` gives a set of "
            "some of its images."
        )


def _refuse_background(task: FewShotTask, asked: Mapping[int, str], domain: str) -> None:
    contents = getattr(task.train, "contents", {})
    seen = {c: [i for i, found in contents.items() if c in found.held] for c in asked}
    drawn = [name for c, name in asked.items() if c in getattr(task.train, "distractors", ())]
    held = [f"{asked[c]} in {_some(ids)}" for c, ids in seen.items() if ids] + [f"{name} in all" for name in drawn]
    if held:
        raise LeakageError(
            f"Training images hold classes of the test in {domain} as background: {'; '.join(held)}. Drop them, as BAM "
            "does (`without_classes`), or keep them, as most papers do, with novel_as_background=True."
        )


def _some(ids: Sequence[str] | Collection[str]) -> str:
    """The number of images and the first three."""
    ids = list(ids)
    return f"{len(ids)} ({', '.join(ids[:3])}{' ...' if len(ids) > 3 else ''})"
