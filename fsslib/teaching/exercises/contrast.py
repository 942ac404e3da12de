"""Checks for the exercises of notebook 40: the contrastive loss with classes, its floor, its pushes, orthogonality."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fsslib.blocks.contrast import prototype_contrastive_loss
from fsslib.blocks.memory import orthogonality_loss

__all__ = ["check_contrast", "check_contrast_floor", "check_orthogonality", "check_push_shares"]


def check_contrast(your_function: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> None:
    """`your_function(anchors [B, C], positives [B, C], class_ids [B], temperature)` returns the symmetric loss.

    Images of the anchor's own class are no negatives. Raises AssertionError with a hint: classes not used, one
    direction only, half a mean, the partner struck out, temperature or lengths forgotten.
    """
    generator = torch.Generator().manual_seed(0)
    for batch, temperature in ((2, 1.0), (5, 0.5), (8, 0.1)):
        anchors, positives = torch.randn(2, batch, 6, generator=generator, dtype=torch.float64)
        ids = torch.arange(batch) // 2 if batch > 2 else torch.arange(batch)
        given = anchors, positives, ids
        expected = prototype_contrastive_loss(*given, temperature=temperature)
        one_way = 2 * prototype_contrastive_loss(*given, temperature=temperature, symmetric=False)
        slips = {
            "images of the same class are still negatives; leave them out of the sum": prototype_contrastive_loss(
                anchors, positives, temperature=temperature
            ),
            "only the anchors ask for their positives; let the positives ask for their anchors too": one_way,
            "this is the printed form, half a mean: B terms over 2 B": one_way / 2,
            "the temperature is not used": prototype_contrastive_loss(*given, temperature=1.0),
            "the temperature multiplies here; divide the cosines by it": prototype_contrastive_loss(
                *given, temperature=1 / temperature
            ),
            "these are inner products; divide by both lengths": _symmetric(*given, temperature, normalise=False),
            "an anchor is among its own candidates, with the cosine 1; strike out the diagonal": _symmetric(
                *given, temperature, with_itself=True
            ),
        }
        found = your_function(anchors.clone(), positives.clone(), ids.clone(), temperature)
        _agrees(found, expected, slips, f"batch of {batch}, temperature {temperature:g}: -log pos / (pos + neg)")
    alone = your_function(anchors.clone(), positives.clone(), torch.zeros(len(anchors), dtype=torch.int64), temperature)
    _agrees(alone, torch.zeros(()), {}, "one class alone has nothing to push from, and costs 0")
    print("passed: contrast agrees with the library on 3 batches, images of one class too")


def check_contrast_floor(your_function: Callable[[int, float], float]) -> None:
    """`your_function(images, temperature)` is the lowest symmetric loss of features that are nowhere negative.

    Raises AssertionError with a hint: B - 1 negatives in place of 2 (B - 1), the simplex, the printed half.
    """
    cases = [(images, temperature) for images in (2, 4, 8, 16) for temperature in (1.0, 0.3, 0.1)]

    def floor(images: int, temperature: float, share: float = 2.0, cosine: float = 0.0) -> float:
        return math.log1p(share * (images - 1) * math.exp((cosine - 1) / temperature))

    slips: dict[str, Callable[[int, float], float]] = {
        "every other image has two prototypes, so there are 2 (B - 1) negatives": lambda b, t: floor(b, t, share=1.0),
        "this is the simplex; cosines of features that are nowhere negative are at least 0": lambda b, t: floor(
            b, t, cosine=-1 / (b - 1)
        ),
        "this is the loss of equal prototypes, what a network pays that knows nothing": lambda b, t: floor(
            b, t, cosine=1.0
        ),
        "this is the floor of the printed form, half of the symmetric one": lambda b, t: floor(b, t) / 2,
        "the temperature is not used": lambda b, t: floor(b, 1.0),
    }
    found = {case: float(your_function(*case)) for case in cases}
    for case in cases:
        expected = floor(*case)
        if math.isclose(found[case], expected, rel_tol=1e-6):
            continue
        hint = "with a perfect partner pos = exp(1 / tau), and each negative is exp(0) at best"
        for slip, wrong in slips.items():
            if all(math.isclose(found[c], wrong(*c), rel_tol=1e-6) for c in cases):
                hint = slip
        images, temperature = case
        raise AssertionError(
            f"{images} images, temperature {temperature:g}: expected {expected:.6f}, found {found[case]:.6f}. "
            f"Hint: {hint}."
        )
    print("passed: contrast_floor is right for 2 to 16 images at 3 temperatures")


def check_push_shares(your_function: Callable[[Tensor, float], Tensor]) -> None:
    """`your_function(cosines [n], temperature)` returns each negative's share of the push: [n], adding up to 1.

    Raises AssertionError with a hint: temperature forgotten or multiplied, logarithms, shares of the cosines.
    """
    generator = torch.Generator().manual_seed(0)
    for count, temperature in ((3, 1.0), (14, 0.3), (6, 0.02)):
        cosines = 2 * torch.rand(count, generator=generator) - 1
        slips = {
            "the temperature is not used": cosines.softmax(0),
            "the temperature multiplies here; divide by it": (cosines * temperature).softmax(0),
            "these are the logarithms of the shares": (cosines / temperature).log_softmax(0),
            "these are exponentials before they are divided by their sum": (cosines / temperature).exp(),
            "these are shares of the cosines; the loss weighs by exp(cosine / temperature)": cosines / cosines.sum(),
            "the far ones are pushed most here; the sign is the wrong way round": (-cosines / temperature).softmax(0),
        }
        found = your_function(cosines.clone(), temperature)
        hint = f"{count} negatives, temperature {temperature:g}: a softmax over the negatives alone"
        _agrees(found, (cosines / temperature).softmax(0), slips, hint)
    print("passed: push_shares agrees with the gradient's softmax at 3 temperatures")


def check_orthogonality(your_function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """`your_function(means [J, C], stds [J, C])` returns the centred loss over pairs i != j.

    Raises AssertionError with a hint: not centred, diagonal counted, signs kept, squares, one bank only, a sum of both.
    """
    generator = torch.Generator().manual_seed(0)
    for items, channels in ((3, 4), (8, 5), (6, 16)):
        means, stds = torch.rand(2, items, channels, generator=generator)
        cosines = [
            F.normalize(bank - bank.mean(0), dim=1) @ F.normalize(bank - bank.mean(0), dim=1).T
            for bank in (means, stds)
        ]
        pairs = ~torch.eye(items, dtype=torch.bool)
        expected = orthogonality_loss(means, stds)
        slips = {
            "the mean item is not subtracted; centre each bank first": orthogonality_loss(means, stds, centred=False),
            "every item is compared with itself too; leave the diagonal out": orthogonality_loss(
                means, stds, diagonal=True
            ),
            "this is the printed form: with the diagonal, not centred": orthogonality_loss(
                means, stds, centred=False, diagonal=True
            ),
            "cosines of both signs cancel each other; take their absolute values": sum(
                c[pairs].mean() / 2 for c in cosines
            ),
            "these are squared cosines; take their absolute values": sum(c[pairs].square().mean() / 2 for c in cosines),
            "these are the means alone; the deviations count as much": cosines[0].abs()[pairs].mean(),
            "both banks are added; take the mean of the two": 2 * expected,
            "the diagonal is left out of the sum and still counted: divide by J (J - 1)": expected
            * (items - 1)
            / items,
        }
        found = your_function(means.clone(), stds.clone())
        _agrees(found, expected, slips, f"{items} items: mean of |cos| over pairs i != j, averaged over both banks")
    print("passed: orthogonality agrees with the library for 3, 6 and 8 items")


def _symmetric(
    anchors: Tensor,
    positives: Tensor,
    class_ids: Tensor,
    temperature: float,
    *,
    normalise: bool = True,
    with_itself: bool = False,
) -> Tensor:
    """The symmetric loss with a slip in it."""
    both = torch.cat([anchors, positives])
    unit = F.normalize(both, dim=1) if normalise else both
    logits, ids, number = unit @ unit.T / temperature, class_ids.repeat(2), torch.arange(len(both))
    partner = number.roll(len(anchors))
    left_out = ids[:, None] == ids
    left_out[number, partner] = False
    if with_itself:
        left_out[number, number] = False
    return F.cross_entropy(logits.masked_fill(left_out, -torch.inf), partner)


def _agrees(found: object, expected: Tensor, slips: dict[str, Tensor], hint: str) -> None:
    """Raise with the hint of the slip that `found` equals, or with the general one."""
    assert isinstance(found, Tensor), f"a tensor is asked for; found {type(found).__name__}. Is a return missing?"
    assert found.shape == expected.shape, f"expected shape {tuple(expected.shape)}, found {tuple(found.shape)}. {hint}."
    if torch.allclose(found.double(), expected.double(), atol=1e-5):
        return
    for slip, wrong in slips.items():
        if torch.allclose(found.double(), wrong.double(), atol=1e-5):
            raise AssertionError(f"Not yet: {slip}.")
    away = (found.double() - expected.double()).abs().nan_to_num(torch.inf).flatten()
    worst = int(away.argmax())
    values = (expected.flatten()[worst].item(), found.flatten()[worst].item())
    raise AssertionError(f"Not yet: expected {values[0]:.5g}, found {values[1]:.5g}. Hint: {hint}.")
