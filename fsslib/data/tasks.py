"""What a run is asked to do: learn from which images, and be tested on which. The two kinds there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fsslib.data.sampling import k_per_group
from fsslib.data.streams import ImageSet, ImageStream, PairStream
from fsslib.episodes import EpisodeManifest, EpisodeSet, EpisodeSource, EpisodeStream, SegmentationSource
from fsslib.metrics import protocol_named


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
        _check_leakage(self, novel_as_background=self.novel_as_background)
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
        # Imported here: these read files, and most tasks need none.
        from fsslib.data import manifests, pascal, splits
        from fsslib.files import DataError

        if domain not in self.benchmarks or ways != 1:
            there = ", ".join(self.benchmarks) or "no domain of this task"
            raise DataError(
                f"The test episodes of {whose} are 1-way and there for {there}; found {ways} ways in {domain}. Choose "
                "another protocol, or leave that target out."
            )
        name, fold = self.benchmarks[domain]
        if whose == "pfenet":
            if name != "pascal":
                raise DataError(f"PFENet's episodes are drawn from VOC's val list, which {name} has not. Choose hsnet.")
            listed = pascal.read_lists(images.folder, ("val",))
            val = [i for i in listed if i in images.contents]
            areas = {i: splits.BY_AREA.counts(images.original(i)[1]) for i in val}
            classes, about = splits.pascal_fold(fold), {"data": name, "fold": str(fold)}
            about["present"] = f"{len(val)} of {len(listed)} images"
            return manifests.pfenet(areas, classes, shots=shots, episodes=episodes, **about)
        manifest = manifests.present(manifests.frozen(name, whose, shots=shots, fold=fold), images.ids)
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

    @property
    def train_classes(self) -> tuple[int, ...]:
        """All of them: 0 to C-1."""
        return tuple(range(len(self.source.class_names)))

    @property
    def method_options(self) -> dict[str, Any]:
        """What the data decide about a method: the number of classes, and of source images to select from."""
        return {"num_classes": len(self.source.class_names), "source_images": len(self.source_ids)}

    def labelled_targets(self, shots: int, seed: int) -> tuple[str, ...]:
        """The K images of each group. Raises ValueError naming a group that has fewer."""
        group_of = {i: group for group, ids in self.target_ids_by_group.items() for i in ids}
        drawn = k_per_group(group_of, group_of.__getitem__, shots, seed=f"target-{seed}")
        return tuple(i for ids in drawn.values() for i in ids)

    def streams(
        self, *, batch_size: int, ways: int = 1, shots: int = 1, seed: int = 0
    ) -> dict[str, ImageStream | PairStream]:
        """Batches of the source, of the K target images per group (`shots`), and of both. There are no ways here.

        Raises LeakageError when a test image is among the training images.
        """
        _check_leakage(self)
        if ways != 1:
            raise ValueError(f"Domain adaptation has a fixed list of classes and no ways; found ways {ways}.")
        source = ImageStream(self.source, self.source_ids, batch_size, f"source-{seed}")
        target = ImageStream(self.target, self.labelled_targets(shots, seed), batch_size, f"target-{seed}")
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


def _check_leakage(task: FewShotTask | AdaptationTask, **switches: bool) -> None:
    # Imported here, for that file knows the tasks.
    from fsslib.data.leakage import check_leakage

    check_leakage(task, **switches)
