"""Notebook 30: two restylings in one, how long the printed memory lasts, assignment, selection; a mixer of styles."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

import fsslib as fss
from fsslib.teaching.exercises import Exercise


def restylings():
    generator = torch.Generator().manual_seed(0)
    for batch, channels in ((1, 3), (3, 5), (4, 4)):
        first, second = torch.rand(2, 2, batch, channels, generator=generator) + 0.2
        a, b = 0.1 + 0.3 * torch.rand(2, batch, generator=generator)
        yield f"{batch} images of {channels} channels", first, a, second, b


@Exercise(restylings, "is right for 3 batches", "hard", 15)
def restyle_twice(first, a, second, b):
    """(first style [2, B, C], alpha [B], second style [2, B, C], alpha [B]) -> the one style [2, B, C] for both"""
    a, b = a[:, None], b[:, None]

    def mixed(of_first=b * (1 - a), of_second=1 - b, over=1 - a * b, styles=(first, second)):
        return (of_first * styles[0] + of_second * styles[1]) / over

    by_variance = mixed(styles=(first.square(), second.square()))
    return {
        "right": mixed(),
        "this is the second style; of the first one a share is left.": second,
        "this is the first style; most of it is gone after the second restyling.": first,
        "the second restyling dilutes the first style.": mixed(1 - a, 1 - b, 2 - a - b),
        "the weights must add up to 1; what is left of the own style is in neither.": mixed(over=1),
        "the order is exchanged: the second one comes last.": mixed(1 - a, a * (1 - b)),
        "the second alpha alone does not tell how much of the first style there is.": mixed(b, 1 - b, 1),
        "both styles weigh the same here.": mixed(1, 1, 2),
        "variances are mixed here; restyling mixes deviations.": torch.stack([mixed()[0], by_variance[1].sqrt()]),
    }


@Exercise(
    lambda: [(f"ema {ema}", ema) for ema in (0.3, 0.5, 0.9, 0.99, 0.995)],
    "is right for ema 0.3, 0.5, 0.9, 0.99, 0.995",
    "easy",
    10,
    hint="solve ema ** t <= 1 / 2 for t, and round up",
)
def writes_until_halved(ema):
    """(ema) -> the number of writes after which at most half of a difference is left"""
    exact = round(math.log(0.5) / math.log(ema), 9)
    return {
        "right": math.ceil(exact),
        "that is rounded down: after so many writes a little more than half is left.": math.floor(exact),
        "where half is left exactly, that is one write too many: round up.": math.floor(exact) + 1,
        "that is rounded to the nearest; after fewer writes more than half is left, so round up.": round(exact),
        "writes are whole numbers: round up.": exact,
        "differences shrink by a factor each write, not by a fixed amount: ema ** t.": math.ceil(0.5 / (1 - ema)),
        "1 / (1 - ema) writes leave 1 / e, not one half.": round(1 / (1 - ema)),
    }


def styles():
    """Samples [B, 2C] and items [J, 2C] that are nowhere negative, of unlike lengths, fewer and more samples."""
    generator = torch.Generator().manual_seed(0)
    for batch, items in ((5, 4), (24, 6), (16, 9)):
        lengths = [0.3 + 2 * torch.rand(count, 1, generator=generator) for count in (batch, items)]
        yield f"{batch} samples, {items} items", *(n * torch.rand(len(n), 12, generator=generator) for n in lengths)


def cosines(these: Tensor, those: Tensor) -> Tensor:
    return torch.cosine_similarity(these[:, None], those[None], dim=2)


@Exercise(
    lambda: [(case, x, z, (x.mean(0) + z.mean(0)) / 2, t) for t in (0.2, 0.001) for case, x, z in styles()],
    "is right on 3 banks, at a temperature of 0.2 and at 0.001",
    "medium",
    10,
    hint="of shares p the number is exp(-sum p log p), and p log p is 0 for p = 0",
)
def items_asked(x, z, c, t):
    """(samples [B, D], items [J, D], centre [D], temperature) -> how many items each sample asks [B], from 1 to J"""
    near, inner = cosines(x - c, z - c) / t, (x - c) @ (z - c).T / t
    share, wrong_side = near.softmax(1), torch.special.entr(near.softmax(0)).sum(1).exp()

    def number(logits):
        return torch.special.entr(logits.softmax(1)).sum(1).exp()

    return {
        "right": number(near),
        "this is the printed side, where samples compete: the softmax runs over the items (axis 1).": wrong_side,
        "the centre is not used: what all styles share makes all cosines alike.": number(cosines(x, z) / t),
        "only the samples are centred; subtract the centre from the items as well.": number(cosines(x - c, z) / t),
        "only the items are centred; subtract the centre from the samples as well.": number(cosines(x, z - c) / t),
        "the temperature is not used: divide the cosines by it.": number(near * t),
        "the cosines are multiplied by the temperature; divide.": number(near * t * t),
        "these are inner products; divide by both lengths.": number(inner),
        "this is the entropy; the number is its exponential.": torch.special.entr(share).sum(1),
        "the entropy is in nats: take exp of it, not 2 to its power.": 2 ** torch.special.entr(share).sum(1),
        "0 log 0 is NaN: take log_softmax, or torch.special.entr.": (-share * share.log()).sum(1).exp(),
        "this is 1 over the sum of squares, another way of counting.": 1 / share.square().sum(1),
    }


@Exercise(
    lambda: [
        (f"{case}, {r}", *x.chunk(2, 1), *z.chunk(2, 1), r) for case, x, z in styles() for r in ("lowest", "highest")
    ],
    'is right on 3 banks, "lowest" and "highest"',
    "easy",
    10,
)
def margin(mean, std, item_mean, item_std, rule):
    """(mean [B, C], std [B, C], item_mean [J, C], item_std [J, C], "lowest" or "highest") -> lead of the choice [B]"""
    samples, items = torch.cat([mean, std], 1), torch.cat([item_mean, item_std], 1)
    by_mean, by_std = cosines(mean, item_mean), cosines(std, item_std)

    def lead(table, largest=rule == "highest"):
        first, second = table.topk(2, 1, largest=largest).values.T
        return (first - second).abs()

    both = (by_mean + by_std) / 2
    return {
        "right": lead(both),
        'the rules are exchanged: "highest" is argmax, "lowest" argmin.': lead(both, rule == "lowest"),
        "the deviations are not used: take the mean of both cosines.": lead(by_mean),
        "the means are not used: take the mean of both cosines.": lead(by_std),
        "this is the sum of both cosines; take their mean.": lead(2 * both),
        "these are inner products, which prefer long items; divide by both lengths.": lead(samples @ items.T),
        "this is one cosine of mean and deviation together; take one cosine each.": lead(cosines(samples, items)),
        "these are distances, which mind the lengths; take cosines.": lead(-torch.cdist(samples, items)),
        "this is how far the last item is from the first; the next one is asked for.": both.amax(1) - both.amin(1),
    }


def style_mixer(scenes: Mapping[str, Tensor], memory: fss.MetaMemory, seen: Callable = lambda features: features):
    """A widget that gives the features [1, C, h, w] of named scenes the style of an item of a memory, in any share.

    `seen` turns features [B, C, h, w] into pictures [B, 3, H, W]; without it features must have three channels. Raises
    ValueError for a memory in which nothing was stored.
    """
    if memory.filled < 1:
        raise ValueError("The memory is empty: store the statistics of some images first.")

    @torch.no_grad()
    def draw(scene: str, item: int, alpha: float):
        features, index = scenes[scene], torch.tensor([[item, item]], device=memory.mean.device)
        own = fss.feature_statistics(features)
        highest, lowest = (int(memory.select(*own, rule)[0, 0]) for rule in ("highest", "lowest"))
        shown = torch.cat([memory.enhance(features, index, share) for share in (1.0, alpha, 0.0)])
        titles = ["its own style", f"alpha {alpha:.2f}", f"item {item}"]
        figure = fss.plots.show_images(seen(shown), titles=titles, side=2.2)
        return f"Most like this scene: item {highest}; least: item {lowest}.", figure

    controls = {"scene": list(scenes), "item": (0, int(memory.filled) - 1), "alpha": (0.0, 1.0, 0.05)}
    return fss.widgets.Explorer("Style mixer", draw, controls, item=0, alpha=0.5)
