"""Notebook 00: the counts of an episode, mIoU, leaks, scores that flatter; a walk through the toy world."""

from collections.abc import Callable

import torch

import fsslib as fss
from fsslib.data import toyworld
from fsslib.teaching.exercises import Exercise, Parts


def maps():
    generator = torch.Generator().manual_seed(0)
    for trial in range(20):
        ways = 1 + trial % 3
        prediction, labels = torch.randint(0, ways + 1, (2, 9, 7), generator=generator)
        labels[labels == ways] = 0 if trial % 4 == 3 else ways
        labels[torch.rand(9, 7, generator=generator) < 0.2] = fss.VOID
        yield f"map {trial + 1}, ways: {ways}", prediction, labels, ways


@Exercise(
    maps,
    "agrees with FewShotMeter on 20 random maps of 1 to 3 ways, void and absent ways too",
    "medium",
    10,
    hint="compare the masks prediction == n and labels == n, both restricted to labels != 255",
)
def counts_per_way(p, y, ways):
    """(prediction [H, W], labels [H, W], ways) -> TP, FP, FN of each way [ways, 3], void not counted"""
    void, meter = y == fss.VOID, fss.FewShotMeter(range(ways))
    meter.update(p[None], y[None], torch.arange(ways)[None])

    def counts(p, y, numbers):
        pairs = [(p == n, y == n) for n in numbers]
        found = [(says & is_, says & ~is_ & (y != fss.VOID), ~says & is_) for says, is_ in pairs]
        return [[int(pixels.sum()) for pixels in row] for row in found]

    right, numbers = meter.ways[:, 2:].tolist(), range(1, ways + 1)
    unmasked, from_zero = counts(p, y.where(~void, 0), numbers), counts(p, y, range(ways))
    found = [(row, bool((y == n).any())) for n, row in enumerate(right, start=1)]
    there, swapped = [row for row, here in found if here], [(tp, fn, fp) for tp, fp, fn in right]
    pooled = ways * counts(p > 0, y.where(void, (y > 0).long()), [True])
    confused = counts(p, y.where((p == y) | (p * y == 0), fss.VOID), numbers)
    return {
        "right": right,
        "void was counted: leave out every pixel whose label is 255, whatever is predicted there.": unmasked,
        "a way is missing. A way that is absent from the labels has a row too: what is predicted for it is FP.": there,
        "an absent way has FP: all that is predicted for it.": [row if here else [0, 0, 0] for row, here in found],
        "the ways are pooled: a pixel of way 2 predicted as way 1 is FP of way 1 and FN of way 2.": pooled,
        "a pixel of way 2 predicted as way 1 is in no count; it is FP of way 1 and FN of way 2.": confused,
        "FP and FN are exchanged: compare the masks prediction == n and labels == n; FP is in the first.": swapped,
        "this begins with the background: ways are numbered from 1.": from_zero,
        "rows are ways, and columns TP, FP, FN; here it is the other way round.": [*zip(*right)],
    }


def lists():
    """Two to four classes, one of them met once, with episodes of very different sizes; some find nothing."""
    generator = torch.Generator().manual_seed(0)
    for trial in range(20):
        classes = [1001, *(1002 + torch.randint(0, 1 + (trial + 1) % 3, (7,), generator=generator)).tolist()]
        found = (10 ** (3 * torch.rand(8, 3, generator=generator))).long()
        found[5, 0], found[0, 0] = 0, found[0, 0] * (trial % 2)
        unions = found.sum(1)
        yield f"list {trial + 1}", [*zip(classes, (found[:, 0] / unions.double()).tolist(), unions.tolist())]


@Exercise(
    lists,
    "agrees with the field's definition on 20 random lists of episodes",
    "medium",
    10,
    hint="IoU of a class is TP / (TP + FP + FN), summed over its episodes; the mean is over the classes met",
)
def miou(rows):
    """(rows of (class, IoU, TP + FP + FN), one an episode) -> the field's mIoU, one number"""

    def mean(bins=None, rows=rows, weight=lambda iou, union: union):
        """Over bins, by default classes, of the weighted mean of their IoU."""
        sums = {}
        for key, (_, iou, union) in zip(bins or [row[0] for row in rows], rows):
            total, weights = sums.get(key, (0, 0))
            sums[key] = total + weight(iou, union) * iou, weights + weight(iou, union)
        return sum(total / max(weights, 1e-9) for total, weights in sums.values()) / len(sums)

    numbers, one_bin = range(len(rows)), [0] * len(rows)
    each = [mean(rows=[row for row in rows if row[0] == c]) for c, *_ in rows]
    hit, alike = [row for row, score in zip(rows, each) if score], mean(weight=lambda iou, union: 1)
    return {
        "right": mean(),
        "this is the mean over episodes; each class has one IoU, and all classes weigh the same.": mean(bins=numbers),
        "the episodes of a class weigh the same here; by their unions the large ones weigh more.": alike,
        "the unions weigh, not the intersections.": mean(weight=lambda iou, union: iou * union),
        "all classes are in one bin; each class has its own sums, and all classes weigh the same.": mean(bins=one_bin),
        "a class counts as often as it is met here; in the mean all classes weigh the same.": sum(each) / len(each),
        "episodes without TP are left out; their FP and FN count.": mean(rows=[row for row in rows if row[1]]),
        "a class that is never found has the IoU 0, and that counts in the mean.": mean(rows=hit),
        "this is in per cent; here an IoU lies between 0 and 1.": 100 * mean(),
    }


def exams():
    """Of each kind of leak one episode, and two clean ones; shuffled too, so that nobody can learn the places."""
    rows = [
        fss.EpisodeRow("c1001-000010", (1001,), (("c1001-000011",),)),
        fss.EpisodeRow("c1007-000012", (1007,), (("c1007-000013",),)),
        fss.EpisodeRow("c1001-000014", (1001, 1008), (("c1001-000015",), ("c1008-000016",))),
        fss.EpisodeRow("c1002-000009", (1002,), (("c1002-000017",),)),
        fss.EpisodeRow("c1002-000018", (1002,), (("c1002-000019", "c1002-000009"),)),
        fss.EpisodeRow("c1003-000020", (1003, 1002), (("c1003-000021",), ("c1002-000009",))),
        fss.EpisodeRow("c1004-000022", (1004, 1005), (("c1004-000023",), ("c1005-000024",))),
    ]
    for case, order in (("seven episodes", range(7)), ("shuffled", (6, 3, 5, 0, 2, 4, 1))):
        yield case, [rows[n] for n in order], {1006, 1007, 1008}, {"c1006-000001", "c1002-000009"}


def how_often(function):
    """Seen through this, numbers of rows become how often each row was named."""

    def shown(rows, *given):
        names, found = [str(row) for row in rows], [int(n) for n in function(rows, *given)]
        named = {name: found.count(n) for n, name in enumerate(names)}
        return Parts(named | {"numbers that no episode has": sum(not 0 <= n < len(names) for n in found)})

    return shown


@Exercise(exams, "finds all five kinds of leak and accuses no clean episode", "medium", 10, seen=how_often)
def find_leaks(rows, classes, images):
    """(rows, train_classes, train_images) -> the numbers of the episodes that leak, from 0"""

    def leaks(ways=lambda row: row.classes, shown=lambda row: sum(row.supports, ()), asked=lambda row: (row.query,)):
        return [n for n, r in enumerate(rows) if classes & {*ways(r)} or images & {*shown(r), *asked(r)}]

    return {
        "right": leaks(),
        "it leaks: its class was trained on.": leaks(ways=lambda row: ()),
        "it leaks: its second way was trained on.": leaks(ways=lambda row: row.classes[:1]),
        "pictures are not looked at: its query was a training image.": leaks(shown=lambda r: (), asked=lambda r: ()),
        "it leaks: its query was a training image.": leaks(asked=lambda row: ()),
        "supports are not looked at: its second support was a training image.": leaks(shown=lambda row: ()),
        "it leaks: its second support was a training image.": leaks(shown=lambda row: [s[0] for s in row.supports]),
        "it leaks: a support of its second way was a training image.": leaks(shown=lambda row: row.supports[0]),
        "it is clean: neither its classes nor its images were trained on.": range(len(rows)),
        "every leaking episode is to be named once.": leaks() + leaks(),
        "episodes are numbered from 0.": [n + 1 for n in leaks()],
    }


@Exercise(
    lambda: [(f"share {s}, chance {c}", s, c) for s, c in ((0.1, 0.0), (0.1, 1.0), (0.2, 0.5), (0.6, 0.3), (0.5, 0.9))],
    "agrees with FewShotMeter for five shares and chances",
    "medium",
    10,
    hint="by lot the share of pixels that are foreground and marked is share * chance: that is TP",
)
def chance_fb_iou(share, chance):
    """(share of the foreground, chance of a mark) -> the FB-IoU of marking pixels by lot, one number"""
    object_, marked = ((torch.arange(10) < round(10 * part)).long() for part in (share, chance))
    meter, square = fss.FewShotMeter([0]), torch.ones(1, 10, 10, dtype=torch.long)
    meter.update(marked * square, object_[:, None] * square, torch.tensor([[0]]))

    def scores(tp=share * chance, both=1, below=1):
        """The IoUs of foreground and background, `both` the weight of what is right, `below` of what is found wrong."""
        fp, fn, tn = chance - tp, share - tp, 1 - share - chance + tp
        return both * tp / (both * tp + below * fp + fn), both * tn / (both * tn + fp + below * fn)

    return {
        "right": meter.compute().fb_iou,
        "this is the share of right pixels. FB-IoU is a mean of two IoUs.": 1 - share - chance + 2 * share * chance,
        "this is the foreground's IoU alone; the background's has half the weight.": scores()[0],
        "this is the background's IoU alone; the foreground's has half the weight.": scores()[1],
        "this is Dice, 2 TP / (2 TP + FP + FN); IoU counts what is right once.": sum(scores(both=2)) / 2,
        "FP is missing in the foreground's union, FN in the background's.": sum(scores(below=0)) / 2,
        "marks that follow the object are no lot: TP is share * chance.": sum(scores(min(share, chance))) / 2,
    }


def episode_explorer(
    predict: Callable | None = None,
    *,
    similarity: Callable | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
    fold: int = 0,
    size: int = 64,
):
    """A widget to walk through the toy world, one 1-way 1-shot episode at a time.

    `predict` makes a `Prediction` of an episode, as `method.eval().predict` does. `similarity` makes a score map
    [1, h, w] of it, drawn with the colours of `limits`. Without them the widget shows support, query and truth. A scene
    keeps its number in every domain, and holds distractors of the chosen fold's training classes only.
    """

    def classes_of(fold: int) -> list[tuple[str, int]]:
        return [(toyworld.CLASS_NAMES[c], c) for c in toyworld.fold_classes(fold)]

    @torch.no_grad()
    def draw(fold: int, class_id: int, domain: str, support: int, query: int):
        if class_id not in toyworld.fold_classes(fold):
            # The new choice falls on the first of them, which draws.
            explorer.controls["class_id"].options = classes_of(fold)
            return explorer.message.value, None
        if support == query:
            return "Support and query are one picture: copying the mask would be perfect. Move one of them.", None
        shown, asked = (f"c{class_id}-{number:06d}" for number in (support, query))
        world = fss.ToyWorld(domain, size=size, distractors=toyworld.base_classes(fold))
        episode = world.episode([fss.EpisodeRow(asked, (class_id,), ((shown,),))])
        prediction, scores = predict and predict(episode).labels, similarity and similarity(episode)
        there = episode.query_labels == 1
        words = f"The class covers {100 * there.double().mean():.1f} % of the query."
        if predict:
            says = prediction == 1
            iou = (says & there).sum().item() / max((says | there).sum().item(), 1)
            words += f" IoU of the prediction in this one picture: {iou:.3f}."
        return words, fss.plots.show_episode(episode, prediction=prediction, scores=scores, limits=limits)

    folds = [(f"fold {f}", f) for f in toyworld.TEST_FOLDS]
    folds.append((f"fold {toyworld.DEVELOPMENT_FOLD}, development", toyworld.DEVELOPMENT_FOLD))
    choices = {"fold": folds, "class_id": classes_of(fold), "domain": list(toyworld.DOMAINS)}
    controls = choices | {"support": (0, 99), "query": (0, 99)}
    explorer = fss.widgets.Explorer("Episode explorer", draw, controls, fold=fold, support=1, query=2)
    return explorer
