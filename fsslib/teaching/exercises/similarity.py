"""Checks for the exercises of notebook 20: the cosine map, targets of a way, the union of shots, one way among N."""

from collections.abc import Callable

import torch
from torch import Tensor

from fsslib.blocks.pooling import merge_shots
from fsslib.blocks.similarity import cosine_similarity_map
from fsslib.episodes import VOID

__all__ = ["check_cosine_map", "check_union_of_shots", "check_way_targets", "check_winning_probability"]


def check_cosine_map(your_function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """`your_function(features [B, C, h, w], prototype [B, C])` returns the cosines [B, h, w]; a zero vector gives 0.

    Raises AssertionError with a hint: plain inner products, one length forgotten, prototypes mixed up, NaN.
    """
    generator = torch.Generator().manual_seed(0)
    for batch, channels, height, width in ((1, 2, 2, 2), (3, 5, 4, 6), (2, 8, 7, 3)):
        features = torch.randn(batch, channels, height, width, generator=generator)
        prototype = torch.randn(batch, channels, generator=generator)
        found = your_function(features.clone(), prototype.clone())
        _same_shape(found, (batch, height, width), "one cosine for each image and place: the channels are summed away")
        expected = cosine_similarity_map(features, prototype)
        inner = torch.einsum("bchw,bc->bhw", features, prototype)
        lengths = {"feature": features.norm(dim=1), "prototype": prototype.norm(dim=1)[:, None, None]}
        slips = {
            "these are inner products; divide by both lengths": inner,
            "the lengths of the features are missing in the denominator": inner / lengths["prototype"],
            "the length of the prototype is missing in the denominator": inner / lengths["feature"],
            "every image was compared with the first image's prototype": cosine_similarity_map(
                features, prototype[:1].expand_as(prototype)
            ),
            "the cosine lies between -1 and 1; do not move it into [0, 1]": (expected + 1) / 2,
        }
        _agrees(found, expected, slips, "sum over channels of feature times prototype, over both lengths")
    features[0, :, 0, 0], prototype[1] = 0, 0
    found = your_function(features.clone(), prototype.clone())
    assert torch.isfinite(found).all(), (
        "a zero vector has no direction, and 0 / 0 is NaN. Hint: keep the lengths from below, .clamp(min=1e-8)."
    )
    _agrees(found, cosine_similarity_map(features, prototype), {}, "a zero feature or prototype gives 0")
    print("passed: cosine_map agrees with the library on 3 shapes, zero vectors too")


def check_way_targets(your_function: Callable[[Tensor, int], Tensor]) -> None:
    """`your_function(labels [B, H, W] in {0, 1..N, 255}, ways)` returns [B, N, H, W]: 1 the way, 0 the rest, 255 void.

    Raises AssertionError with a hint: void counted as background or foreground, other ways not background.
    """
    generator = torch.Generator().manual_seed(0)
    for ways in (1, 2, 3):
        labels = torch.randint(0, ways + 1, (2, 6, 5), generator=generator)
        labels[torch.rand(2, 6, 5, generator=generator) < 0.2] = VOID
        way = torch.arange(1, ways + 1)[:, None, None]
        here, void = labels[:, None] == way, (labels == VOID)[:, None]
        found = your_function(labels.clone(), ways)
        _same_shape(found, (2, ways, 6, 5), "one map for each way, the ways on the second axis")
        slips = {
            "void became background; whoever is unsure is not to be corrected: keep 255": here.long(),
            "void became foreground; labels > 0 holds for 255 too: keep 255": (here | void).long(),
            "other ways are void here; for this way they are background, 0": torch.where(
                here, 1, torch.where(labels[:, None] == 0, 0, VOID)
            ),
            "the number of the way is still in it; the way's own pixels are 1": torch.where(
                void, VOID, torch.where(here, way, 0)
            ),
        }
        expected = torch.where(void, VOID, here.long())
        _agrees(found, expected, slips, "compare labels[:, None] with the number of each way; put 255 where void is")
    print("passed: way_targets is right for 1 to 3 ways, and void stays void")


def check_union_of_shots(your_function: Callable[[Tensor], Tensor]) -> None:
    """`your_function(logits [B, K, 2, H, W])` returns 1 where any of the K shots says foreground, else 0: [B, H, W].

    Raises AssertionError with a hint: mean of logits or of probabilities, a majority, the largest logit of all shots.
    """
    generator = torch.Generator().manual_seed(0)
    for shots in (1, 3, 5):
        logits = 3 * torch.randn(2, shots, 2, 8, 9, generator=generator)
        logits[:, :, 0] += 2.0
        says = logits.argmax(2)
        found = your_function(logits.clone())
        _same_shape(found, (2, 8, 9), "one answer for each pixel: shots and {background, foreground} are gone")
        slips = {
            "this is the mean of the shots' logits; decide per shot first, then merge": logits.mean(1).argmax(1),
            "this is the mean of the shots' probabilities; decide per shot first, then merge": logits.softmax(2)
            .mean(1)
            .argmax(1),
            "this is the majority; for the union one shot is enough": merge_shots(says, rule="majority"),
            "this is the intersection; for the union one shot is enough": says.amin(1),
            "the largest logits of different shots were compared; each shot has its own background": logits.amax(
                1
            ).argmax(1),
        }
        _agrees(found.long(), merge_shots(says, rule="union"), slips, "argmax over axis 2 decides, any over axis 1")
    print("passed: union_of_shots agrees with merge_shots for 1, 3 and 5 shots")


def check_winning_probability(your_function: Callable[[int], float]) -> None:
    """`your_function(ways)` is the probability above which one way wins when the other ways are at 0.

    The background is the mean of the N values 1 - p_n, as in `merge_ways`. Raises AssertionError with a hint.
    """
    counts = range(1, 9)
    found = {ways: float(your_function(ways)) for ways in counts}
    slips = {
        "one half is right for one way only: with more ways the background is a mean in which the others say 1": 0.5,
        "the believed way adds 1 - p to the background's sum too": lambda ways: (ways - 1) / ways if ways > 1 else 0.5,
    }
    for ways in counts:
        expected = ways / (ways + 1)
        hint = "solve p = ((1 - p) + (N - 1)) / N for p"
        for slip, wrong in slips.items():
            if all(abs(found[n] - (wrong(n) if callable(wrong) else wrong)) < 1e-9 for n in counts):
                hint = slip
        assert abs(found[ways] - expected) < 1e-9, (
            f"{ways} ways: expected {expected:.4f}, found {found[ways]:.4f}. Hint: {hint}."
        )
    print("passed: winning_probability is right for 1 to 8 ways")


def _same_shape(found: object, shape: tuple[int, ...], hint: str) -> None:
    assert isinstance(found, Tensor), f"a tensor of shape {shape} is asked for; found {type(found).__name__}."
    assert tuple(found.shape) == shape, f"expected shape {shape}, found {tuple(found.shape)}. Hint: {hint}."


def _agrees(found: Tensor, expected: Tensor, slips: dict[str, Tensor], hint: str) -> None:
    """Raise with the hint of the slip that `found` equals, or with the general one."""
    if torch.allclose(found.double(), expected.double(), atol=1e-5):
        return
    for slip, wrong in slips.items():
        if torch.allclose(found.double(), wrong.double(), atol=1e-5):
            raise AssertionError(f"Not yet: {slip}.")
    away = (found.double() - expected.double()).abs().nan_to_num(torch.inf)
    place = tuple((away == away.max()).nonzero()[0].tolist())
    raise AssertionError(
        f"Not yet: at {place} expected {expected[place].item():.4g}, found {found[place].item():.4g}. Hint: {hint}."
    )
