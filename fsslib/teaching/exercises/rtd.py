"""Checks for the exercises of notebook 50: which row pays what, the way home, mixing samples, a paired interval."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from scipy import stats
from torch import Tensor

from fsslib.blocks.memory import MetaMemory, feature_statistics, restyle
from fsslib.reproduction.statistics import paired_difference
from fsslib.teaching.exercises.pooling import _agree

__all__ = ["check_mixing", "check_paired_interval", "check_parts", "check_towards_home"]


def check_parts(your_function: Callable[[bool, bool, bool], Iterable[str]]) -> None:
    """Check `your_function(contrast, source, target) -> names` of what a training step pays for, in any order.

    The names are "segmentation", "contrast" and "orthogonality"; `source` and `target` say whether the memory works
    there. Prints one line when the function is right for all eight rows. Raises AssertionError with a hint.
    """
    hints = {
        "segmentation": "the prototype loss is always paid; nothing else teaches where the object ends",
        "contrast": "the contrastive loss hangs on its own switch alone",
        "orthogonality": "the items cost something as soon as anybody uses them, in training or in test",
    }
    switches = (False, True)
    for contrast, source, target in ((c, s, t) for c in switches for s in switches for t in switches):
        expected = {"segmentation": True, "contrast": contrast, "orthogonality": source or target}
        found = your_function(contrast, source, target)
        if found is None or isinstance(found, str):
            raise AssertionError(f"the answer is a collection of names; found {found!r}. Is a return missing?")
        case = f"contrast={contrast}, source={source}, target={target}"
        if unknown := sorted(set(found) - set(expected)):
            raise AssertionError(f"{case}: unknown {', '.join(unknown)}; the names are {', '.join(expected)}.")
        for name, paid in expected.items():
            if (name in set(found)) != paid:
                is_paid = "is paid here" if paid else "is not paid here"
                raise AssertionError(f"{case}: {name} {is_paid}. Hint: {hints[name]}.")
    print("passed: parts is right for all 8 rows")


def check_towards_home(your_function: Callable[[Tensor, MetaMemory, float], Tensor]) -> None:
    """Check `your_function(features [B, C, h, w], memory, alpha) -> features` on their way home, as in test.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not: the least similar
    item, one item for the whole batch, alpha on the wrong side, a memory that was written.
    """
    generator = torch.Generator().manual_seed(0)
    for batch, items, alpha in ((2, 4, 0.5), (6, 5, 0.2), (5, 8, 0.7)):
        memory = MetaMemory(6, items)
        memory.store(*(0.1 + torch.rand(2, items, 6, generator=generator)))
        spread = 0.3 + 2 * torch.rand(batch, 6, 1, 1, generator=generator)
        features = spread * torch.randn(batch, 6, 4, 5, generator=generator).relu()
        own, known = feature_statistics(features), memory.state_dict()
        before = {name: value.clone() for name, value in known.items()}
        highest, lowest = (memory.select(*own, rule) for rule in ("highest", "lowest"))
        expected = memory.enhance(features, highest, alpha)
        slips = {
            'this is the least similar item, which training takes; here it is "highest".': memory.enhance(
                features, lowest, alpha
            ),
            "alpha is the share of the own style; here it is the item's.": memory.enhance(features, highest, 1 - alpha),
            "the own style is gone entirely; keep the share alpha of it.": memory.enhance(features, highest, 0.0),
            "the features did not change.": features,
            "every image chooses an item of its own; here all take that of the first.": memory.enhance(
                features, highest[:1].expand_as(highest), alpha
            ),
        }
        found = your_function(features.clone(), memory, alpha)
        if any(not torch.equal(value, before[name]) for name, value in memory.state_dict().items()):
            raise AssertionError(f"{batch} images: the memory was written. In test it is only read.")
        _agree(f"{batch} images, {items} items", found, expected.detach(), slips)
    print("passed: towards_home agrees with the library on 3 memories, and leaves them as they are")


def check_mixing(your_function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check `your_function(features [B, C, h, w], order [B], alpha [B]) -> features`: image b gets a share of the style
    of image order[b] of the same batch, and keeps the share alpha[b] of its own.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not: pixels mixed instead
    of styles, alpha on the wrong side, styles that were not re-ordered.
    """
    generator = torch.Generator().manual_seed(0)
    for batch, channels in ((3, 4), (5, 2), (8, 6)):
        features = 2 * torch.randn(batch, channels, 4, 3, generator=generator) + 1
        features = features * (0.5 + torch.rand(batch, 1, 1, 1, generator=generator))
        order = torch.arange(batch).roll(1)
        alpha = 0.1 + 0.3 * torch.rand(batch, generator=generator)
        mean, std = feature_statistics(features)
        share = alpha[:, None, None, None]
        slips = {
            "these are mixed features: two pictures in one. Mix means and deviations only.": share * features
            + (1 - share) * features[order],
            "alpha is the share of the own style; here it is the other one's.": restyle(
                features, mean[order], std[order], 1 - alpha
            ),
            "nothing changed: the style that is mixed in is the own one. Re-order the statistics.": features,
            "the other style is taken over entirely: alpha is not used.": restyle(
                features, mean[order], std[order], 0.0
            ),
            "the contents are re-ordered as well; only the style comes from elsewhere.": restyle(
                features[order], mean, std, alpha
            ),
            "the deviations are still their own; mix both statistics.": restyle(features, mean[order], std, alpha),
        }
        found = your_function(features.clone(), order.clone(), alpha.clone())
        _agree(
            f"{batch} images of {channels} channels", found, restyle(features, mean[order], std[order], alpha), slips
        )
    print("passed: mixing agrees with the library on 3 batches")


def check_paired_interval(
    your_function: Callable[[Mapping[tuple[int, int], float], Mapping[tuple[int, int], float]], tuple[float, float]],
) -> None:
    """Check `your_function(ours, baseline) -> (low, high)`, Student's 95 % interval of the mean paired difference.

    Both are scores by (fold, seed), in any order. Prints one line when the function is right. Raises AssertionError
    with a hint when it is not: pairs lost, 1.96 for the quantile, n in place of n - 1, no square root of n.
    """
    generator = torch.Generator().manual_seed(0)
    for folds, seeds in ((5, 1), (4, 3), (3, 2)):
        units = [(fold, seed) for fold in range(folds) for seed in range(seeds)]
        luck, noise = 8 * torch.randn(len(units), generator=generator), torch.randn(len(units), generator=generator)
        baseline = {unit: 40 + value for unit, value in zip(units, luck.tolist())}
        ours = {unit: baseline[unit] + 2 + value for unit, value in reversed(list(zip(units, noise.tolist())))}
        interval = paired_difference(ours, baseline)
        n, gaps = len(units), torch.tensor([ours[unit] - baseline[unit] for unit in units], dtype=torch.float64)
        by_place = torch.tensor(list(ours.values())).double() - torch.tensor(list(baseline.values())).double()
        spread, t = gaps.std().item(), stats.t.ppf(0.975, n - 1)
        apart = math.hypot(*(torch.tensor(list(part.values())).std().item() for part in (ours, baseline)))
        slips = {
            "the dictionaries are in different orders; pair them by their keys": (
                by_place.mean().item(),
                t * by_place.std().item() / math.sqrt(n),
            ),
            "the pairs are lost: the spread is that of the differences, not of both samples": (
                interval.mean,
                t * apart / math.sqrt(n),
            ),
            "1.96 belongs to many runs; with few take Student's t with n - 1 degrees of freedom": (
                interval.mean,
                1.96 * spread / math.sqrt(n),
            ),
            "the variance of a sample is divided by n - 1, not by n": (
                interval.mean,
                t * gaps.std(correction=0).item() / math.sqrt(n),
            ),
            "this is where single runs lie; the mean of n runs is surer, by the square root of n": (
                interval.mean,
                t * spread,
            ),
            "these are n degrees of freedom; there are n - 1": (
                interval.mean,
                stats.t.ppf(0.975, n) * spread / math.sqrt(n),
            ),
        }
        intervals = {hint: torch.tensor([mean - reach, mean + reach]) for hint, (mean, reach) in slips.items()}
        found = your_function(dict(ours), dict(baseline))
        if isinstance(found, tuple | list):
            found = torch.tensor([float(value) for value in found], dtype=torch.float64)
        _agree(f"{n} pairs", found, torch.tensor([interval.low, interval.high]), intervals)
    print("passed: paired_interval agrees with the library for 5, 12 and 6 pairs")
