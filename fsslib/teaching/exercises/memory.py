"""Checks for the exercises of notebook 30: restyling, how long the printed memory lasts, assignment, selection."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fsslib.blocks.memory import MetaMemory, feature_statistics, restyle
from fsslib.teaching.exercises.pooling import _agree

__all__ = ["check_assignment", "check_restyle", "check_select", "check_writes_until_halved"]


def check_restyle(your_function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check `your_function(features [B, C, h, w], mean [B, C], std [B, C], alpha [B]) -> features in the mixed style`.

    `alpha` is the share of the own style. Prints one line when the function is right. Raises AssertionError with a
    hint when it is not: alpha on the wrong side, only one of the statistics changed, statistics of the whole batch.
    """
    generator = torch.Generator().manual_seed(0)
    for batch, channels, side in ((1, 3, 4), (3, 5, 6), (4, 4, 3)):
        features = 2 * torch.randn(batch, channels, side, side + 1, generator=generator) + 1
        mean, std = torch.rand(2, batch, channels, generator=generator) + 0.2
        alpha = 0.1 + 0.3 * torch.rand(batch, generator=generator)
        own_mean, own_std = feature_statistics(features)
        mixed_std = alpha[:, None] * own_std + (1 - alpha[:, None]) * std
        shared_mean, shared_std = features.mean((0, 2, 3)), features.std((0, 2, 3), correction=0)
        by_batch = _to_places(alpha) * features + _to_places(1 - alpha) * (
            (features - shared_mean[:, None, None]) / shared_std[:, None, None] * _to_places(std) + _to_places(mean)
        )
        centred = features - _to_places(own_mean)
        slips = {
            "alpha is the share of the own style; here it is the share of the other one.": restyle(
                features, mean, std, 1 - alpha
            ),
            "the features did not change.": features,
            "the other style is taken over entirely: alpha is not used.": restyle(features, mean, std, 0.0),
            "only the means are mixed; the deviations are to be mixed too.": restyle(features, mean, own_std, alpha),
            "only the deviations are mixed; the means are to be mixed too.": restyle(features, own_mean, std, alpha),
            "the own deviation is still in it: divide by it before you multiply by the mixed one.": centred
            * _to_places(mixed_std)
            + _to_places(alpha[:, None] * own_mean + (1 - alpha[:, None]) * mean),
            "mean and deviation are those of the whole batch; each image has its own (axes 2 and 3).": by_batch,
        }
        case = f"{batch} images of {channels} channels"
        arguments = (features.clone(), mean.clone(), std.clone(), alpha.clone())
        _agree(case, your_function(*arguments), restyle(features, mean, std, alpha), slips)
    constant = torch.full((1, 2, 3, 3), 2.0)
    arguments = (constant, torch.ones(1, 2), torch.ones(1, 2), torch.tensor([0.5]))
    _agree("a constant map", your_function(*(value.clone() for value in arguments)), restyle(*arguments), {})
    print("passed: restyle agrees with the library on 3 shapes and on a constant map")


def check_writes_until_halved(your_function: Callable[[float], int]) -> None:
    """Check `your_function(ema) -> writes` after which at most half of a difference is left when each keeps `ema`.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not.
    """
    rates = (0.3, 0.5, 0.9, 0.99, 0.995)
    expected = {ema: math.ceil(round(math.log(0.5) / math.log(ema), 9)) for ema in rates}
    found = {ema: your_function(ema) for ema in rates}
    slips = {
        "that is rounded down: after so many writes a little more than half is left": lambda ema: math.floor(
            math.log(0.5) / math.log(ema)
        ),
        "differences shrink by a factor each write, not by a fixed amount: ema ** t": lambda ema: math.ceil(
            0.5 / (1 - ema)
        ),
        "1 / (1 - ema) writes leave 1 / e, not one half": lambda ema: round(1 / (1 - ema)),
    }
    for ema, writes in expected.items():
        if found[ema] == writes:
            continue
        hint = next((slip for slip, wrong in slips.items() if all(found[e] == wrong(e) for e in rates)), None)
        hint = hint or "solve ema ** t <= 1 / 2 for t, and round up"
        raise AssertionError(f"ema {ema}: expected {writes}, found {found[ema]}. Hint: {hint}.")
    print(f"passed: writes_until_halved is right for ema {', '.join(map(str, rates))}")


def check_assignment(your_function: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> None:
    """Check `your_function(samples [B, D], items [J, D], centre [D], temperature) -> shares [B, J]`.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not: softmax over the
    samples, no common centre, no temperature, inner products.
    """
    for samples, items in _styles():
        centre = (samples.mean(0) + items.mean(0)) / 2
        temperature = 0.2
        near, raw = _cosines(samples - centre, items - centre), _cosines(samples, items)
        inner = (samples - centre) @ (items - centre).T
        by_sample = near / temperature
        slips = {
            "samples add up to 1 for each item: this is the printed side, where nobody competes. The softmax runs over "
            "the items (axis 1).": by_sample.softmax(0),
            "the centre is not used: what all styles share makes all cosines alike.": (raw / temperature).softmax(1),
            "only the samples are centred; subtract the centre from the items as well.": (
                _cosines(samples - centre, items) / temperature
            ).softmax(1),
            "the temperature is not used: divide the cosines by it.": near.softmax(1),
            "the cosines are multiplied by the temperature; divide.": (near * temperature).softmax(1),
            "these are inner products; divide by both lengths.": (inner / temperature).softmax(1),
            "this is the table [J, B]; samples are the rows.": by_sample.softmax(1).T,
            "cosines over their sum are no softmax: they can be negative.": near / near.sum(1, keepdim=True),
        }
        case = f"{len(samples)} samples, {len(items)} items"
        found = your_function(samples.clone(), items.clone(), centre.clone(), temperature)
        _agree(case, found, by_sample.softmax(1), slips)
    print("passed: assignment is right on 3 banks; the shares of a sample add up to 1")


def check_select(your_function: Callable[[Tensor, Tensor, Tensor, Tensor, str], Tensor]) -> None:
    """Check `your_function(mean [B, C], std [B, C], item_mean [J, C], item_std [J, C], rule) -> index [B]`.

    `rule` is "lowest" or "highest" in the mean of both cosines. Prints one line when the function is right. Raises
    AssertionError with a hint when it is not: rules exchanged, one of the statistics ignored, inner products.
    """
    for samples, items in _styles():
        (mean, std), (item_mean, item_std) = samples.chunk(2, 1), items.chunk(2, 1)
        memory = MetaMemory(mean.shape[1], len(items))
        memory.store(item_mean, item_std)
        for rule in ("lowest", "highest"):
            tables = {
                "the deviations are not used: take the mean of both cosines.": _cosines(mean, item_mean),
                "the means are not used: take the mean of both cosines.": _cosines(std, item_std),
                "these are inner products, which prefer long items; divide by both lengths.": mean @ item_mean.T
                + std @ item_std.T,
                "one cosine of mean and deviation together lets the longer of the two decide; take one cosine each.": (
                    _cosines(samples, items)
                ),
            }
            slips = {
                'the rules are exchanged: "highest" is argmax, "lowest" argmin.': memory.select(
                    mean, std, "lowest" if rule == "highest" else "highest"
                )[:, 0]
            }
            slips |= {hint: table.argmax(1) if rule == "highest" else table.argmin(1) for hint, table in tables.items()}
            expected = memory.select(mean, std, rule)[:, 0]
            found = your_function(mean.clone(), std.clone(), item_mean.clone(), item_std.clone(), rule)
            _agree(f"{len(samples)} samples, {len(items)} items, {rule}", found, expected, slips)
    print('passed: select agrees with the library on 3 banks, "lowest" and "highest"')


def _styles() -> Iterator[tuple[Tensor, Tensor]]:
    """Samples [B, 2C] and items [J, 2C] that are nowhere negative, of unlike lengths, fewer and more samples."""
    generator = torch.Generator().manual_seed(0)
    for batch, items in ((5, 4), (24, 6), (16, 9)):
        lengths = [0.3 + 2 * torch.rand(count, 1, generator=generator) for count in (batch, items)]
        yield tuple(length * torch.rand(len(length), 12, generator=generator) for length in lengths)


def _cosines(these: Tensor, those: Tensor) -> Tensor:
    return torch.cosine_similarity(these[:, None], those[None], dim=2)


def _to_places(values: Tensor) -> Tensor:
    """[B] or [B, C] with the axes of a feature map."""
    return values[(..., *[None] * (4 - values.dim()))]
