"""Notebook 40: the contrastive loss with classes, its floor, its pushes, orthogonality."""

import math

import torch
import torch.nn.functional as F

import fsslib as fss
from fsslib.teaching.exercises import Exercise


def batches():
    generator = torch.Generator().manual_seed(0)
    for batch, temperature in ((2, 1.0), (5, 0.5), (8, 0.1)):
        anchors, positives = torch.randn(2, batch, 6, generator=generator, dtype=torch.float64)
        ids = torch.arange(batch) // 2 if batch > 2 else torch.arange(batch)
        yield f"batch of {batch}, temperature {temperature:g}", anchors, positives, ids, temperature
    yield "one class alone, which has nothing to push from and costs 0", anchors, positives, 0 * ids, temperature


@Exercise(
    batches,
    "agrees with the library on 3 batches, images of one class too",
    "hard",
    20,
    hint="-log pos / (pos + neg)",
    gradients=(0, 1),
)
def contrast(a, p, ids, t):
    """(anchors [B, C], positives [B, C], class_ids [B], temperature) -> the symmetric loss, one number"""
    both, number = torch.cat([a, p]), torch.arange(2 * len(a))
    partner, itself = number.roll(len(a)), torch.eye(len(both), dtype=torch.bool)
    ours, same = itself[partner], ids.repeat(2)[:, None] == ids.repeat(2)
    unit, one_side = F.normalize(both, dim=1), (number[:, None] < len(a)) == (number < len(a))
    right, flat, steep = (fss.prototype_contrastive_loss(a, p, ids, temperature=one) for one in (t, 1.0, 1 / t))
    printed = fss.prototype_contrastive_loss(a, p, ids, temperature=t, symmetric=False)

    def slipped(left_out, vectors=unit):
        logits = vectors @ vectors.T / t
        return (logits.masked_fill(left_out, -torch.inf).logsumexp(1) - logits[ours]).mean()

    logits, alike, by_clip = unit @ unit.T / t, same & ~itself, one_side | same & ~ours
    logs = (logits - logits.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)) * alike
    supervised = -(logs.sum(1) / alike.sum(1)).mean()
    return {
        "right": right,
        "images of the same class are still negatives; leave them out of the sum.": slipped(itself),
        "only the anchors ask for their positives; let the positives ask for their anchors too.": 2 * printed,
        "this is the printed form, half a mean: B terms over 2 B.": printed,
        "this is a sum of 2 B terms; take their mean.": len(both) * right,
        "the temperature is not used.": flat,
        "the temperature multiplies here; divide the cosines by it.": steep,
        "these are inner products; divide by both lengths.": slipped(same & ~ours, both),
        "an anchor is among its own candidates, with the cosine 1; strike out the diagonal.": slipped(alike & ~ours),
        "the partner is struck out as well; it stands in pos and below the fraction.": slipped(same),
        "this is CLIP's form: anchors are pushed from positives alone; they push each other, too.": slipped(by_clip),
        "all of the class are positives here (supervised contrast); only the partner is.": supervised,
    }


@Exercise(
    lambda: [(f"{b} images, temperature {t:g}", b, t) for b in (2, 4, 8, 16) for t in (1.0, 0.3, 0.1)],
    "is right for 2 to 16 images at 3 temperatures",
    "medium",
    10,
    hint="with a perfect partner pos = exp(1 / tau), and each negative is exp(0) at best",
)
def contrast_floor(b, t):
    """(images, temperature) -> the lowest symmetric loss of features that are nowhere negative"""

    def floor(negatives=2 * (b - 1), cosine=0.0, scale=1 / t):
        return math.log1p(negatives * math.exp((cosine - 1) * scale))

    simplex = floor(cosine=-1 / (b - 1))
    return {
        "right": floor(),
        "every other image has two prototypes, so there are 2 (B - 1) negatives.": floor(b - 1),
        "the partner is no negative, so there are 2 (B - 1) of them.": floor(2 * b - 1),
        "this is the simplex; cosines of features that are nowhere negative are at least 0.": simplex,
        "this is the loss of equal prototypes, what a network pays that knows nothing.": floor(cosine=1.0),
        "this is the floor of the printed form, half of the symmetric one.": floor() / 2,
        "the temperature is not used.": floor(scale=1.0),
        "the temperature multiplies here; divide the cosines by it.": floor(scale=t),
        "pos is missing below the fraction: it is pos / (pos + neg).": math.log(2 * (b - 1)) - 1 / t,
    }


def negatives():
    generator = torch.Generator().manual_seed(0)
    for count, temperature in ((3, 1.0), (14, 0.3), (6, 0.005)):
        yield (
            f"{count} negatives, temperature {temperature:g}",
            2 * torch.rand(count, generator=generator) - 1,
            temperature,
        )


@Exercise(
    negatives,
    "agrees with the gradient's softmax at 3 temperatures",
    "easy",
    10,
    hint="a softmax over the negatives alone",
)
def push_shares(c, t):
    """(cosines [n], temperature) -> each negative's share of the push [n], adding up to 1"""
    naive = (c / t).exp()
    return {
        "right": (c / t).softmax(0),
        "the temperature is not used.": c.softmax(0),
        "the temperature multiplies here; divide by it.": (c * t).softmax(0),
        "exp overflows in single precision: subtract the largest cosine first, it cancels.": naive / naive.sum(),
        "these are the logarithms of the shares.": (c / t).log_softmax(0),
        "these are exponentials before they are divided by their sum.": naive,
        "these are shares of the cosines; the loss weighs by exp(cosine / temperature).": c / c.sum(),
        "the far ones are pushed most here; the sign is the wrong way round.": (-c / t).softmax(0),
    }


def banks():
    generator = torch.Generator().manual_seed(0)
    for items, channels in ((3, 4), (8, 5), (6, 16)):
        yield f"{items} items", *torch.rand(2, items, channels, generator=generator)


@Exercise(
    banks,
    "agrees with the library for 3, 6 and 8 items",
    "medium",
    15,
    hint="mean of |cos| over pairs i != j, averaged over both banks",
    gradients=(0, 1),
)
def orthogonality(m, e):
    """(means [J, C], stds [J, C]) -> the centred loss over pairs i != j, one number"""
    pairs = ~torch.eye(len(m), dtype=torch.bool)

    def cosines(bank):
        unit = F.normalize(bank - bank.mean(0), dim=1)
        return (unit @ unit.T)[pairs]

    right, both = fss.orthogonality_loss(m, e), torch.cat([cosines(m), cosines(e)])
    printed, joint = fss.orthogonality_loss(m, e, centred=False, diagonal=True), cosines(torch.cat([m, e], 1))
    return {
        "right": right,
        "the mean item is not subtracted; centre each bank first.": fss.orthogonality_loss(m, e, centred=False),
        "every item is compared with itself too; leave the diagonal out.": fss.orthogonality_loss(m, e, diagonal=True),
        "this is the printed form: with the diagonal, not centred.": printed,
        "cosines of both signs cancel each other; take their absolute values.": both.mean(),
        "these are squared cosines; take their absolute values.": both.square().mean(),
        "these are the means alone; the deviations count as much.": cosines(m).abs().mean(),
        "means and deviations are one vector here; each bank has cosines of its own.": joint.abs().mean(),
        "both banks are added; take the mean of the two.": 2 * right,
        "the diagonal is left out of the sum and still counted: divide by J (J - 1).": right * (1 - 1 / len(m)),
        "every pair is counted once and divided by J (J - 1), which counts it twice.": right / 2,
    }
