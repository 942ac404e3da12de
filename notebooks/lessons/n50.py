"""Notebook 50: what each switch sets to work, the way home, mixing samples, a paired interval."""

import itertools
import math

import torch

import fsslib as fss
from fsslib.teaching.exercises import Exercise, Parts, among

NAMES = ("second pass", "written", "read in training", "read in test")


def switches():
    for given in itertools.product((False, True), repeat=3):
        yield "contrast={}, source={}, target={}".format(*given), *given


@Exercise(switches, "is right for all 8 rows", "easy", 10, seen=among(*NAMES))
def at_work(contrast, source, target):
    """(contrast, source, target) -> the names of what happens: a second pass, and the memory written or read"""
    happens = (contrast or source, source or target, source, target)
    right = {name for name, does in zip(NAMES, happens) if does}
    return {
        "right": right,
        "a second pass is for other colours or foreign styles, and for nothing else.": right ^ {"second pass"},
        "what is read later, in training or in test, must have been written in training.": right ^ {"written"},
        "training reads the memory to go abroad, and for nothing else.": right ^ {"read in training"},
        "in test the memory is read on the way home, and for nothing else.": right ^ {"read in test"},
    }


def memories():
    generator = torch.Generator().manual_seed(0)
    for batch, items, alpha in ((2, 4, 0.5), (6, 5, 0.2), (5, 8, 0.7)):
        memory = fss.MetaMemory(6, items)
        memory.store(*(0.1 + torch.rand(2, items, 6, generator=generator)))
        spread = 0.3 + 2 * torch.rand(batch, 6, 1, 1, generator=generator)
        features = spread * torch.randn(batch, 6, 4, 5, generator=generator).relu()
        yield f"{batch} images, {items} items", features, memory, alpha, batch % 3 + 2


def afterwards(function):
    """Seen through this, a function tells whether it wrote into the memory, then its answer."""

    def shown(features, memory, *given):
        before = {name: value.clone() for name, value in memory.state_dict().items()}
        found = function(features, memory, *given)
        written = any(not torch.equal(value, before[name]) for name, value in memory.state_dict().items())
        return Parts({"afterwards": written, "": found})

    return shown


@Exercise(memories, "is right for 3 memories, and leaves them as they are", "medium", 15, seen=afterwards)
def towards_several(f, memory, a, count):
    """(features [B, C, h, w], memory, alpha, count) -> features, towards the mean of the `count` most similar items"""
    mean, std = own = fss.feature_statistics(f)
    items = memory.mean.detach(), memory.std.detach()
    by_mean, by_std = (torch.cosine_similarity(one[:, None], bank[None], dim=2) for one, bank in zip(own, items))
    alike, inner = (by_mean + by_std) / 2, torch.cat(own, 1) @ torch.cat(items, 1).T

    def towards(alike=alike, alpha=a, count=count):
        chosen = alike.topk(count, 1).indices
        return fss.restyle(f, *(bank[chosen].mean(1) for bank in items), alpha)

    def writing():
        found = towards()
        memory.store(mean, std)
        return found

    return {
        "right": towards(),
        "the memory was written. In test it is only read.": writing,
        "these are the least similar items, which training takes; here they are the most similar.": towards(-alike),
        "alpha is the share of the own style; here it is the items'.": towards(alpha=1 - a),
        "the own style is gone entirely; keep the share alpha of it.": towards(alpha=0.0),
        "the features did not change.": f,
        "every image chooses items of its own; here all take those of the first.": towards(alike[:1].expand_as(alike)),
        "the deviations have no say in the choice: take the mean of both cosines.": towards(by_mean),
        "the means have no say in the choice: take the mean of both cosines.": towards(by_std),
        "inner products choose the long items; divide by both lengths.": towards(inner),
        "this is the most similar item alone.": towards(count=1),
    }


def batches():
    generator = torch.Generator().manual_seed(0)
    for batch, channels in ((3, 4), (5, 2), (8, 6)):
        features = 2 * torch.randn(batch, channels, 4, 3, generator=generator) + 1
        features = features * (0.5 + torch.rand(batch, 1, 1, 1, generator=generator))
        alpha = 0.1 + 0.3 * torch.rand(batch, generator=generator)
        yield f"{batch} images of {channels} channels", features, torch.arange(batch).roll(1), alpha


@Exercise(batches, "agrees with the library on 3 batches", "medium", 10)
def mixing(f, order, a):
    """(features [B, C, h, w], order [B], alpha [B]) -> features with the share 1 - alpha of the style of order[b]"""
    (mean, std), share = fss.feature_statistics(f), a[:, None]
    own, other, inverse = (mean, std), (mean[order], std[order]), order.argsort()
    blended = torch.lerp(f[order], f, a[:, None, None, None])
    variance = torch.lerp(std[order].square(), std.square(), share)
    away = fss.restyle(f, mean[inverse], std[inverse], a)
    by_variance = fss.restyle(f, torch.lerp(mean[order], mean, share), variance.sqrt(), 0.0)
    return {
        "right": fss.restyle(f, *other, a),
        "these are mixed features: two pictures in one. Mix means and deviations only.": blended,
        "alpha is the share of the own style; here it is the other one's.": fss.restyle(f, *other, 1 - a),
        "nothing changed: the style that is mixed in is the own one. Re-order the statistics.": f,
        "the other style is taken over entirely: alpha is not used.": fss.restyle(f, *other, 0 * a),
        "the contents are re-ordered as well; only the style comes from elsewhere.": fss.restyle(f[order], *own, a),
        "image order[b] takes the style of image b; it is the other way round.": away,
        "the deviations are still their own; mix both statistics.": fss.restyle(f, mean[order], std, a),
        "the means are still their own; mix both statistics.": fss.restyle(f, mean, std[order], a),
        "variances are mixed here; mix their roots, the deviations.": by_variance,
    }


def scores():
    generator = torch.Generator().manual_seed(0)
    for folds, seeds in ((5, 1), (4, 3), (3, 2)):
        units = list(itertools.product(range(folds), range(seeds)))
        luck, noise = (size * torch.randn(len(units), generator=generator) for size in (8, 1))
        baseline = {unit: 40 + value for unit, value in zip(units, luck.tolist())}
        ours = {unit: baseline[unit] + 2 + value for unit, value in reversed(list(zip(units, noise.tolist())))}
        yield f"{len(units)} pairs", ours, baseline


@Exercise(scores, "agrees with the library for 5, 12 and 6 pairs", "hard", 15)
def paired_interval(ours, baseline):
    """(ours, baseline, scores by (fold, seed)) -> two numbers, the ends of the 95 % interval of the mean difference"""
    from scipy import stats  # a second, which other lessons need not wait for

    n, by_place = len(ours), torch.tensor([[*ours.values()], [*baseline.values()]]).double()
    gaps = torch.tensor([ours[unit] - baseline[unit] for unit in ours]).double()
    t, interval = stats.t.ppf(0.975, n - 1), fss.paired_difference(ours, baseline)

    def around(quantile=t, gaps=gaps, spread=None):
        reach = quantile * (gaps.std() if spread is None else spread) / math.sqrt(n)
        return gaps.mean() - reach, gaps.mean() + reach

    apart = by_place.var(1).sum().sqrt()
    return {
        "right": (interval.low, interval.high),
        "the dictionaries are in different orders; pair them by their keys.": around(gaps=by_place[0] - by_place[1]),
        "the pairs are lost: the spread is that of the differences, not of both samples.": around(spread=apart),
        "1.96 belongs to many runs; with few take Student's t with n - 1 degrees of freedom.": around(1.96),
        "this leaves 5 % on each side; of 95 % in the middle 2.5 % are on each side.": around(stats.t.ppf(0.95, n - 1)),
        "the variance of a sample is divided by n - 1, not by n.": around(spread=gaps.std(correction=0)),
        "this is where single runs lie; the mean of n runs is surer, by the square root of n.": around(t * n**0.5),
        "these are n degrees of freedom; there are n - 1.": around(stats.t.ppf(0.975, n)),
        "the sign: it is ours minus the baseline.": (-interval.high, -interval.low),
        "the lower end comes first.": (interval.high, interval.low),
    }
