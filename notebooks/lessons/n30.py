"""Notebook 30: restyling, how long the printed memory lasts, assignment, selection; a mixer of styles."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

import fsslib as fss
from fsslib.teaching.exercises import Exercise


def images():
    generator = torch.Generator().manual_seed(0)
    for batch, channels, side in ((1, 3, 4), (3, 5, 6), (4, 4, 3)):
        features = 2 * torch.randn(batch, channels, side, side + 1, generator=generator) + 1
        mean, std = torch.rand(2, batch, channels, generator=generator) + 0.2
        alpha = 0.1 + 0.3 * torch.rand(batch, generator=generator)
        yield f"{batch} images of {channels} channels", features, mean, std, alpha
    yield "a constant map", torch.full((1, 2, 3, 3), 2.0), torch.ones(1, 2), torch.ones(1, 2), torch.tensor([0.5])


@Exercise(images, "agrees with the library on 3 shapes and on a constant map", "medium", 10)
def restyle(f, m, s, a):
    """(features [B, C, h, w], mean [B, C], std [B, C], alpha [B], the share of the own) -> features, restyled"""
    own, share, mean, std = fss.feature_statistics(f), a[:, None, None, None], m[:, :, None, None], s[:, :, None, None]

    def mixed(axes=(2, 3), factor=1.0, power=1, undivided=False):
        """By statistics over other axes, by another deviation, with variances mixed, or without the division."""
        own_mean = f.mean(axes, keepdim=True)
        own_std = factor * ((f - own_mean).square().mean(axes, keepdim=True) + 1e-5).sqrt()
        new_std = (share * own_std**power + (1 - share) * std**power) ** (1 / power)
        scale = new_std if undivided else new_std / own_std
        return (f - own_mean) * scale + share * own_mean + (1 - share) * mean

    unbiased = math.sqrt(f[0, 0].numel() / (f[0, 0].numel() - 1))
    return {
        "right": fss.restyle(f, m, s, a),
        "alpha is the share of the own style; here it is the share of the other one.": fss.restyle(f, m, s, 1 - a),
        "the features did not change.": f,
        "the other style is taken over entirely: alpha is not used.": fss.restyle(f, m, s, 0.0),
        "every image has an alpha of its own; here all have the first one's.": fss.restyle(f, m, s, a[:1].expand_as(a)),
        "only the means are mixed; the deviations are to be mixed too.": fss.restyle(f, m, own[1], a),
        "only the deviations are mixed; the means are to be mixed too.": fss.restyle(f, own[0], s, a),
        "variances are mixed here; mix their roots, the deviations.": mixed(power=2),
        "the own deviation is still in it: divide by it before you multiply by the mixed one.": mixed(undivided=True),
        "mean and deviation are those of the whole batch; each image has its own (axes 2 and 3).": mixed((0, 2, 3)),
        "mean and deviation are those of all channels; each channel has its own (axes 2 and 3).": mixed((1, 2, 3)),
        "the variance is divided by n - 1; here it is the biased one, divided by n.": mixed(factor=unbiased),
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
    lambda: [(case, x, z, (x.mean(0) + z.mean(0)) / 2, 0.2) for case, x, z in styles()],
    "is right on 3 banks; the shares of a sample add up to 1",
    "medium",
    10,
)
def assignment(x, z, c, t):
    """(samples [B, D], items [J, D], centre [D], temperature) -> shares [B, J]"""
    near, inner = cosines(x - c, z - c), (x - c) @ (z - c).T
    return {
        "right": (near / t).softmax(1),
        "samples add up to 1 for each item: this is the printed side, where nobody competes. The softmax runs over the "
        "items (axis 1).": (near / t).softmax(0),
        "the centre is not used: what all styles share makes all cosines alike.": (cosines(x, z) / t).softmax(1),
        "only the samples are centred; subtract the centre from the items as well.": (cosines(x - c, z) / t).softmax(1),
        "only the items are centred; subtract the centre from the samples as well.": (cosines(x, z - c) / t).softmax(1),
        "the temperature is not used: divide the cosines by it.": near.softmax(1),
        "the cosines are multiplied by the temperature; divide.": (near * t).softmax(1),
        "these are inner products; divide by both lengths.": (inner / t).softmax(1),
        "this is the table [J, B]; samples are the rows.": (near / t).softmax(1).T,
        "cosines over their sum are no softmax: they can be negative.": near / near.sum(1, keepdim=True),
        "this gives a sample to its nearest item alone; the shares are soft.": near == near.amax(1, keepdim=True),
    }


@Exercise(
    lambda: [
        (f"{case}, {r}", *x.chunk(2, 1), *z.chunk(2, 1), r) for case, x, z in styles() for r in ("lowest", "highest")
    ],
    'agrees with the library on 3 banks, "lowest" and "highest"',
    "easy",
    10,
)
def select(mean, std, item_mean, item_std, rule):
    """(mean [B, C], std [B, C], item_mean [J, C], item_std [J, C], "lowest" or "highest") -> index [B]"""
    memory = fss.MetaMemory(mean.shape[1], len(item_mean))
    memory.store(item_mean, item_std)
    samples, items = torch.cat([mean, std], 1), torch.cat([item_mean, item_std], 1)

    def by(table):
        return table.argmax(1) if rule == "highest" else table.argmin(1)

    right, other = (memory.select(mean, std, one)[:, 0] for one in (rule, "lowest" if rule == "highest" else "highest"))
    together = by(cosines(samples, items))
    return {
        "right": right,
        'the rules are exchanged: "highest" is argmax, "lowest" argmin.': other,
        "the deviations are not used: take the mean of both cosines.": by(cosines(mean, item_mean)),
        "the means are not used: take the mean of both cosines.": by(cosines(std, item_std)),
        "these are inner products, which prefer long items; divide by both lengths.": by(samples @ items.T),
        "one cosine of mean and deviation together lets the longer of the two decide; take one cosine each.": together,
        "these are distances, which mind the lengths; take cosines.": by(-torch.cdist(samples, items)),
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
