"""Notebook 40: the contrastive loss with classes, its worst, its even odds, the items that are most alike."""

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
    hint="the cosine to the partner is 0, to other anchors 1, to other positives 0",
)
def price_of_confusion(b, t):
    """(images, temperature) -> the symmetric loss when all anchors are one vector, all positives one at right angles"""
    anchors, positives = torch.eye(2, dtype=torch.float64)[:, None].expand(2, b, 2)

    def price(alike=b - 1, apart=b - 1, scale=1 / t, partner=1.0):
        return math.log(partner + apart + alike * math.exp(scale))

    equal, floor = math.log(2 * b - 1), math.log1p(2 * (b - 1) * math.exp(-1 / t))
    return {
        "right": fss.prototype_contrastive_loss(anchors, positives, temperature=t).item(),
        "this is what equal prototypes pay, who know nothing; these do worse.": equal,
        "this is the floor, where partners are alike; here they are at right angles.": floor,
        "this is the printed form, half of the symmetric one.": price() / 2,
        "the temperature is not used.": price(scale=1.0),
        "the temperature multiplies here; divide the cosines by it.": price(scale=t),
        "the other positives are negatives too: they have the cosine 0, and exp(0) is 1.": price(apart=0),
        "the other anchors are negatives too: they have the cosine 1.": price(alike=0),
        "the partner is no negative, and stands in pos.": price(apart=b),
        "an anchor is no negative of its own.": price(alike=b),
    }


def negatives():
    generator = torch.Generator().manual_seed(0)
    for count, temperature in ((3, 1.0), (14, 0.3), (6, 0.005)):
        cosines = 2 * torch.rand(count, generator=generator) - 1
        yield f"{count} negatives, temperature {temperature:g}", cosines, temperature


@Exercise(negatives, "is right at 3 temperatures", "medium", 15, hint="pull and push are even where pos equals neg")
def even_cosine(c, t):
    """(cosines of the negatives [n], temperature) -> the partner's cosine at which the loss is log 2, one number"""
    right, naive = t * (c / t).logsumexp(0), t * (c / t).exp().sum().log()
    return {
        "right": right,
        "the temperature is not used.": c.logsumexp(0),
        "the temperature multiplies here; divide by it.": (c * t).logsumexp(0) / t,
        "this is cosine / temperature; a cosine is asked for.": right / t,
        "exp overflows in single precision: subtract the largest cosine first, and add it again.": naive,
        "this is the hardest negative; the others push, too.": c.amax(),
        "this is the mean cosine; the loss weighs by exp(cosine / temperature).": c.mean(),
        "the exponentials are averaged; neg is their sum.": right - t * math.log(len(c)),
        "the sign is the wrong way round.": -right,
    }


def banks():
    generator = torch.Generator().manual_seed(0)
    for items, channels in ((3, 4), (8, 5), (6, 16)):
        yield f"{items} items", *torch.rand(2, items, channels, generator=generator)


@Exercise(
    banks,
    "is right in value and gradient for 3, 6 and 8 items",
    "medium",
    15,
    hint="the largest |cos| over pairs i != j, averaged over both banks",
    gradients=(0, 1),
)
def closest_pair(m, e):
    """(means [J, C], stds [J, C]) -> how alike the two most similar centred items are, both banks' mean, one number"""
    pairs = ~torch.eye(len(m), dtype=torch.bool)

    def cosines(bank, centre=1):
        unit = F.normalize(bank - centre * bank.mean(0), dim=1)
        return (unit @ unit.T)[pairs]

    def largest(change=torch.abs, centre=1):
        return (change(cosines(m, centre)).amax() + change(cosines(e, centre)).amax()) / 2

    of_means, of_stds, joint = (cosines(bank).abs().amax() for bank in (m, e, torch.cat([m, e], 1)))
    return {
        "right": largest(),
        "the mean item is not subtracted; centre each bank first.": largest(centre=0),
        "this is the mean over all pairs; the most similar one is asked for.": fss.orthogonality_loss(m, e),
        "opposite items are alike, too; take the absolute values of the cosines.": largest(lambda cosine: cosine),
        "these are squared cosines; take their absolute values.": largest(torch.square),
        "these are the means alone; the deviations count as much.": of_means,
        "means and deviations are one vector here; each bank has cosines of its own.": joint,
        "this is the most similar pair of both banks; each bank has one.": torch.maximum(of_means, of_stds),
        "both banks are added; take the mean of the two.": 2 * largest(),
    }
