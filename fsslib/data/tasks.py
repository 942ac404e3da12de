"""What a run is asked to do: learn from which images, and be tested on which. The two kinds there are.

And a check before training: nothing that the test asks for may have been there to learn from.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fsslib import paths
from fsslib.data.names import ALIASES
from fsslib.data.sampling import k_per_group
from fsslib.data.streams import ImageSet, ImageStream, PairStream, Relabelled
from fsslib.episodes import EpisodeManifest, EpisodeSet, EpisodeSource, EpisodeStream, SegmentationSource
from fsslib.files import DataError
from fsslib.protocols import protocol_named


@dataclass(frozen=True)
class FewShotTask:
    """Train on `train_classes` of `train`, test on `test_classes` of every domain in `tests` (the source first).

    `target_classes` names the domains that are asked about other classes than the source: where a target shows other
    things altogether, such as defects on metal. `novel_as_background` says that training images may show test classes,
    unlabelled, as in most papers; else that is refused as a leak before training begins.
    """

    train: EpisodeSource
    train_classes: tuple[int, ...]
    tests: Mapping[str, EpisodeSource]
    test_classes: tuple[int, ...]
    target_classes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    novel_as_background: bool = False

    benchmarks: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """For domains with published test episodes the data set and the fold they are of."""

    method_options: Mapping[str, Any] = field(default_factory=dict, init=False)
    """What the data decide about a method: nothing, for a few-shot method takes any class."""

    held_out: None = field(default=None, init=False)
    """Images for choosing a checkpoint: none, the last weights are the ones that are tested."""

    def __post_init__(self):
        for domain in self.tests:
            if leaked := set(self.train_classes) & set(self.classes_in(domain)):
                names = ", ".join(self.train.class_names[c] for c in sorted(leaked))
                raise ValueError(f"Classes are in training and in the test in {domain}: {names}.")

    def classes_in(self, domain: str) -> tuple[int, ...]:
        """The classes that are asked for in a domain."""
        return self.target_classes.get(domain, self.test_classes)

    def streams(self, *, batch_size: int, ways: int = 1, shots: int = 1, seed: int = 0) -> dict[str, EpisodeStream]:
        """Training episodes, by the name that recipes use. Raises LeakageError as `check_leakage` does."""
        check_leakage(self)
        return {"source": EpisodeStream(self.train, self.train_classes, batch_size, ways=ways, shots=shots, seed=seed)}

    def exams(
        self, episodes: int, *, ways: int = 1, shots: int = 1, seed: str = "0", protocol: str = "toy"
    ) -> dict[str, EpisodeSet]:
        """The test of each domain: that many frozen episodes, a function of these arguments alone.

        They show images and truth as the protocol has them. Under "hsnet" they are the first of HSNet's own, as far as
        their images are there, under "pfenet" drawn by PFENet's rule among the images of VOC's val list (5,000 in its
        paper); `seed` is then of no account. Raises DataError for a domain that has none, and ValueError under a
        protocol that scores at the label maps' own size for a domain that is drawn at one.
        """
        manifests, rule = {}, protocol_named(protocol)
        for domain, images in self.tests.items():
            if rule.labels_at == "original" and not hasattr(images, "under"):
                raise ValueError(f"{domain} has no label maps at a size of their own. Choose another protocol.")
            if rule.episodes != "own":
                manifests[domain] = self._published(domain, images, rule.episodes, episodes, ways, shots)
            else:
                classes = self.classes_in(domain)
                rows = images.sample(classes, episodes, ways=ways, shots=shots, seed=seed, presence_probability=1.0)
                about = {"data": images.name, "domain": domain, "seed": seed}
                manifests[domain] = EpisodeManifest(tuple(rows), about)
        # Only when nothing is refused: COCO's label maps may have to be painted for it.
        seen = {d: images.under(rule) if hasattr(images, "under") else images for d, images in self.tests.items()}
        return {domain: EpisodeSet(seen[domain], manifest) for domain, manifest in manifests.items()}

    def _published(
        self, domain: str, images: EpisodeSource, whose: str, episodes: int, ways: int, shots: int
    ) -> EpisodeManifest:
        # Imported here: these read files, and the toy world needs none.
        from fsslib.data import benchmarks
        from fsslib.data.quirks import voc_lists

        if domain not in self.benchmarks or ways != 1:
            there = ", ".join(self.benchmarks) or "no domain of this task"
            raise DataError(
                f"The test episodes of {whose} are 1-way and there for {there}; found {ways} ways in {domain}. Choose "
                "another protocol, or leave that target out."
            )
        name, fold = self.benchmarks[domain]
        if whose == "pfenet":
            listed = voc_lists(paths.data_root(), "val")
            val = [i for i in listed if i in images.files]
            shown = {i: benchmarks.areas(images.original(i)[1]) for i in val}
            about = {"data": name, "fold": str(fold), "present": f"{len(val)} of {len(listed)} images"}
            return benchmarks.pfenet(shown, benchmarks.pascal_fold(fold), shots=shots, episodes=episodes, **about)
        manifest = benchmarks.present(benchmarks.frozen(name, whose, shots=shots, fold=fold), images.ids)
        return EpisodeManifest(manifest.rows[:episodes], manifest.about)

    def describe(self) -> str:
        """What is learnt and what is asked, for people, one line each."""

        def line(said: str, images: EpisodeSource, classes: Sequence[int]) -> str:
            return f"{said} {len(classes)} classes: " + ", ".join(images.class_names[c] for c in classes)

        lines = [line("trained on", self.train, self.train_classes)]
        asked: dict[tuple[int, ...], list[str]] = {}
        for domain in self.tests:
            asked.setdefault(self.classes_in(domain), []).append(domain)
        for classes, domains in asked.items():
            lines.append(line(f"tested in {', '.join(domains)} on", self.tests[domains[0]], classes))
        return "\n".join(lines)


UNLABELLED = 50
"""Images of each group of the target that are seen without labels where K = 0."""


@dataclass(frozen=True)
class AdaptationTask:
    """Segment the same classes in another domain: many labelled source images, K labelled target images per group.

    A group is a city or a drive. The K images are drawn by the training seed; the test images are fixed. `held_out` are
    source images for choosing a checkpoint without a look at the target.
    """

    source: SegmentationSource
    source_ids: tuple[str, ...]
    target: SegmentationSource
    target_ids_by_group: Mapping[str, tuple[str, ...]]
    tests: Mapping[str, ImageSet]
    held_out: ImageSet
    part: tuple[int, int] = (0, 1)
    """Which of how many disjoint parts of the target's images is labelled."""

    @property
    def train_classes(self) -> tuple[int, ...]:
        """All of them: 0 to C-1."""
        return tuple(range(len(self.source.class_names)))

    @property
    def method_options(self) -> dict[str, Any]:
        """What the data decide about a method: the number of classes, and of source images to select from."""
        return {"num_classes": len(self.source.class_names), "source_images": len(self.source_ids)}

    def labelled_targets(self, shots: int, seed: int) -> tuple[str, ...]:
        """The K images of each group; for K = 0 the UNLABELLED ones. Raises ValueError naming a group with fewer."""
        number, parts = self.part if shots else (0, 1)
        group_of = {i: group for group, ids in self.target_ids_by_group.items() for i in ids[number::parts]}
        drawn = k_per_group(group_of, group_of.__getitem__, shots or UNLABELLED, seed=f"target-{seed}")
        return tuple(i for ids in drawn.values() for i in ids)

    def streams(
        self, *, batch_size: int, ways: int = 1, shots: int = 1, seed: int = 0
    ) -> dict[str, ImageStream | PairStream]:
        """Batches of the source, of the K target images per group (`shots`), and of both. There are no ways here.

        For K = 0 the target's labels are void throughout. Raises LeakageError when a test image is among the training
        images.
        """
        check_leakage(self)
        if ways != 1:
            raise ValueError(f"Domain adaptation has a fixed list of classes and no ways; found ways {ways}.")
        source = ImageStream(self.source, self.source_ids, batch_size, f"source-{seed}")
        shown = self.target if shots else Relabelled(self.target, {}, self.target.class_names)
        target = ImageStream(shown, self.labelled_targets(shots, seed), batch_size, f"target-{seed}")
        return {"source": source, "target": target, "both": PairStream(source, target)}

    def exams(self, episodes: int, *, protocol: str = "toy", **_: Any) -> dict[str, ImageSet]:
        """The test of each domain: its first `episodes` test images, whatever else a few-shot test depends on.

        Raises ValueError for a protocol of episodes, and for one that scores elsewhere than at the input's size.
        """
        if protocol_named(protocol).of_episodes:
            raise ValueError(f"{protocol!r} is a rule for episodes; images of a set have no ways. Choose another.")
        return {domain: ImageSet(images.source, images.ids[:episodes]) for domain, images in self.tests.items()}

    def describe(self) -> str:
        """What is learnt and what is asked, for people."""
        groups = ", ".join(f"{group} {len(ids)}" for group, ids in self.target_ids_by_group.items())
        return (
            f"{len(self.source.class_names)} classes: {', '.join(self.source.class_names.values())}\n"
            f"source: {len(self.source_ids)} images of {self.source.domain}\n"
            f"target images to draw K from: {groups}\n"
            f"tested in: {', '.join(f'{domain} {len(images)}' for domain, images in self.tests.items())}"
        )


CONTAINS: Mapping[str, tuple[str, ...]] = {
    "bicyclist": ("person", "bicycle"),
    "rider": ("person",),
    "sign": ("stop sign",),
}
"""Classes that another data set labels under other names: who was trained on those has seen them.

SUIM's divers are not here: they are "person" itself (`fsslib.data.names.ALIASES`)."""


class LeakageError(ValueError):
    """The test's classes or images are in the training; the message names them and the next step."""


def check_leakage(task: FewShotTask | AdaptationTask) -> None:
    """Raise LeakageError when the training of a task could have seen what its tests ask for.

    Few-shot: a test class that is trained on, by its id, by another spelling or data set's name of it, or as a part of
    it (`CONTAINS`); an image that training and test share, which covers the supports and queries of every exam drawn
    from that test; a test class that training images hold as background. The last is how most papers train: keep such
    images with the task's `novel_as_background`, drop them (BAM's way, `LabelledImageSet.without_classes`) without.

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
        if not task.novel_as_background:
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
    if hasattr(task.train, "distractors"):  # a drawn world, in which any image may hold them
        held = [f"{name} in all" for c, name in asked.items() if c in task.train.distractors]
    else:
        seen = {c: [i for i, shown in task.train.contents.items() if c in shown.held] for c in asked}
        held = [f"{asked[c]} in {_some(ids)}" for c, ids in seen.items() if ids]
    if held:
        raise LeakageError(
            f"Training images hold classes of the test in {domain} as background: {'; '.join(held)}. Drop them, as BAM "
            "does (`without_classes`), or keep them, as most papers do, with novel_as_background=True."
        )


def _some(ids: Sequence[str] | Collection[str]) -> str:
    """The number of images and the first three."""
    ids = list(ids)
    return f"{len(ids)} ({', '.join(ids[:3])}{' ...' if len(ids) > 3 else ''})"
