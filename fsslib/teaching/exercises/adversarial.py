"""Checks for the exercises of notebook 60: class balance, gradient reversal, PixAdv, Fourier stylisation."""

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fsslib.blocks.adversarial import class_balance_map, fourier_stylise, pixadv_loss, pixel_difficulty_map
from fsslib.episodes import VOID
from fsslib.teaching.exercises.pooling import _agree

__all__ = ["check_class_balance", "check_fourier_stylise", "check_pixadv", "check_reversal"]


def check_class_balance(your_function: Callable[[Tensor, int], Tensor]) -> None:
    """Check `your_function(labels [B, H, W], num_classes) -> B [B, H, W]`, 0 where the label is void.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not: the share itself,
    shares of the whole batch, void pixels counted or given a weight, the classes' mean.
    """
    for case, labels, classes in _label_maps():
        expected = class_balance_map(labels, classes)
        valid = labels != VOID
        pixels = valid.sum((1, 2), keepdim=True).clamp(min=1)
        batch = torch.bincount(labels[valid], minlength=classes) / valid.sum().clamp(min=1)
        present = torch.stack([(labels == c).flatten(1).any(1) for c in range(classes)], 1).sum(1)[:, None, None]
        own = (1 - expected) * valid
        slips = {
            "this is the share of the class: frequent classes come out high. B is 1 minus it.": own,
            "void pixels (255) have a weight; set it to 0.": expected.where(valid, 1.0),
            "void pixels count in the number of pixels; divide by those that have a label.": class_balance_map(
                labels, classes, count_ignored=True
            ),
            "the shares are those of the whole batch; each image has its own.": torch.where(
                valid, 1 - batch[labels.clamp(max=classes - 1)], 0.0
            ),
            "this is 1 over the share; B is 1 minus it, and stays below 1.": torch.where(
                valid, 1 / own.clamp(min=1e-9), 0.0
            ),
            "all classes of an image get the same; take the share of each pixel's own class.": torch.where(
                valid, 1 - 1 / present.clamp(min=1), 0.0
            ),
            "this is the number of pixels, not their share: divide by the pixels with a label.": torch.where(
                valid, 1 - own * pixels, 0.0
            ),
        }
        _agree(case, your_function(labels.clone(), classes), expected, slips)
    print("passed: class_balance agrees with the library, with void pixels, one class alone and nothing but void")


def check_reversal(your_function: Callable[[Tensor, float], Tensor]) -> None:
    """Check `your_function(x, strength) -> x`, whose gradient comes back times -strength.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not: the sign already on
    the way forward, no gradient at all, the gradient unchanged.
    """
    generator = torch.Generator().manual_seed(0)
    for strength in (0.3, 1.0, 2.5, 0.0):
        x, incoming = torch.randn(2, 3, 4, 5, generator=generator)
        x.requires_grad_()
        y = your_function(x, strength)
        case = f"strength {strength:g}, forward"
        slips = {
            "the sign is already turned on the way forward; there the function changes nothing.": -x,
            "the strength is already there on the way forward; there the function changes nothing.": -strength * x,
        }
        _agree(case, y, x, {hint: wrong.detach() for hint, wrong in slips.items()})
        if not y.requires_grad:
            raise AssertionError(
                f"strength {strength:g}: no gradient comes back at all. `detach` may hold only a part of the result."
            )
        (found,) = torch.autograd.grad(y, x, incoming)
        slips = {
            "the gradient comes back unchanged: this is the plain identity.": incoming,
            "the gradient is scaled but not reversed.": strength * incoming,
            "the gradient is reversed but not scaled by the strength.": -incoming,
            "one identity too many: the parts with a gradient should add up to -strength x.": (1 - strength) * incoming,
        }
        _agree(f"strength {strength:g}, backward", found, -strength * incoming, slips)
    print("passed: reversal changes nothing forward and turns the gradient round, at 4 strengths")


def check_pixadv(your_function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Check `your_function(logits [B, C, H, W], discriminator_logits [B, 1, H, W], labels [B, H, W]) -> loss []`.

    Value and gradient, maps detached, the mean over labelled pixels. Prints one line when the function is right. Raises
    AssertionError with a hint when it is not: the wrong side of the discriminator, a map forgotten or not detached,
    void pixels in the mean.
    """
    for case, labels, classes in _label_maps():
        generator = torch.Generator().manual_seed(len(labels))
        shape = (len(labels), classes, *labels.shape[1:])
        logits = torch.randn(shape, generator=generator)
        judge = torch.randn(1, classes, 1, 1, generator=generator)
        found, gradient = _with_gradient(your_function, logits, judge, labels)
        expected, wanted = _with_gradient(pixadv_loss, logits, judge, labels)
        slips = {hint: _with_gradient(slip, logits, judge, labels) for hint, slip in _pixadv_slips().items()}
        _agree(case, found, expected, {hint: value for hint, (value, _) in slips.items()})
        _agree(f"{case}, gradient", gradient, wanted, {hint: slope for hint, (_, slope) in slips.items()})
    print("passed: pixadv agrees with the library in value and gradient, and is 0 where there is nothing but void")


def check_fourier_stylise(your_function: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    """Check `your_function(source [B, 3, H, W], target [B, 3, H, W], half_width) -> images [B, 3, H, W]`, one size.

    Prints one line when the function is right. Raises AssertionError with a hint when it is not: the target's phase, a
    window in the corner of the spectrum, a window of the wrong size, clipping.
    """
    generator = torch.Generator().manual_seed(0)
    for half_width, height, width in ((0, 8, 8), (1, 9, 12), (3, 12, 16)):
        source, target = torch.rand(2, 2, 3, height, width, generator=generator)
        expected = fourier_stylise(source, target, half_width)
        slips = {
            "nothing changed.": source,
            "these are the target's images with the source's amplitudes: exchange the two.": fourier_stylise(
                target, source, half_width
            ),
            "the values are clipped to [0, 1]: that undoes a part of the swap.": expected.clamp(0, 1),
            "the phases are the target's, too: keep the source's.": _swap(source, target, half_width, phase=True),
            "the window lies in a corner of the spectrum: torch.fft.fftshift brings low frequencies to the centre, "
            "ifftshift puts them back.": _swap(source, target, half_width, centred=False),
            "the window is one bin short: from centre - half_width to centre + half_width is 2 half_width + 1.": _swap(
                source, target, half_width, short=1
            ),
        }
        found = your_function(source.clone(), target.clone(), half_width)
        _agree(f"half_width {half_width}", found, expected, slips)
    print("passed: fourier_stylise agrees with the library for half widths 0, 1 and 3")


def _label_maps() -> Iterator[tuple[str, Tensor, int]]:
    """Label maps with the case in words and their number of classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.6, 0.25, 0.1, 0.05]), 3 * 6 * 8, replacement=True, generator=generator)
    labels = labels.view(3, 6, 8)
    yield "3 images of 4 classes", labels, 4
    with_void = labels.clone()
    with_void[:, 1:3, 2:7] = VOID
    with_void[2, :4] = VOID
    yield "with void pixels", with_void, 4
    yield "one class alone", torch.ones(1, 4, 4, dtype=torch.int64), 3
    yield "nothing but void", torch.full((2, 4, 4), VOID), 3


def _with_gradient(loss: Callable[..., Tensor], logits: Tensor, judge: Tensor, labels: Tensor) -> tuple[object, Tensor]:
    """A loss and its gradient for the logits, with a discriminator that weighs the classes' probabilities."""
    logits = logits.clone().requires_grad_()
    value = loss(logits, (judge * logits.softmax(1)).sum(1, keepdim=True), labels.clone())
    if not isinstance(value, Tensor) or not value.requires_grad:
        return value, torch.zeros_like(logits)
    return value.detach(), torch.autograd.grad(value, logits, allow_unused=True, materialize_grads=True)[0]


def _pixadv_slips() -> Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    def attached(z: Tensor, d: Tensor, y: Tensor) -> Tensor:
        return pixadv_loss(z, d, y, detach_maps=False)

    def flipped(z: Tensor, d: Tensor, y: Tensor) -> Tensor:
        return pixadv_loss(z, -d, y)

    def over_all(z: Tensor, d: Tensor, y: Tensor) -> Tensor:
        return pixadv_loss(z, d, y, reduce="all")

    def over_weights(z: Tensor, d: Tensor, y: Tensor) -> Tensor:
        return pixadv_loss(z, d, y, normalise_map=True)

    def all_detached(z: Tensor, d: Tensor, y: Tensor) -> Tensor:
        return pixadv_loss(z, d.detach(), y) + 0 * z.sum()

    def maps_alone(z: Tensor, d: Tensor, y: Tensor) -> Tensor:
        weights = pixel_difficulty_map(z.detach(), y) * class_balance_map(y, z.shape[1])
        return weights.sum() / (y != VOID).sum().clamp(min=1)

    def added(z: Tensor, d: Tensor, y: Tensor) -> Tensor:
        maps = F.softplus(d[:, 0]) * (y != VOID) + pixel_difficulty_map(z.detach(), y)
        return (maps + class_balance_map(y, z.shape[1])).sum() / (y != VOID).sum().clamp(min=1)

    return {
        "the discriminator is told the truth, softplus(-d); to fool it is softplus(d).": flipped,
        "S is missing: weigh by the difficulty.": lambda z, d, y: pixadv_loss(z, d, y, use_difficulty=False),
        "B is missing: weigh by the balance.": lambda z, d, y: pixadv_loss(z, d, y, use_balance=False),
        "void pixels count in the mean; divide by the pixels that have a label.": over_all,
        "the weights are divided by their mean; that is a switch, and off here.": over_weights,
        "the discriminator's logits are detached too: that is the way the gradient should take.": all_detached,
        "A is missing: this weighs pixels and fools nobody.": maps_alone,
        "the maps are added; they are weights, multiply them.": added,
        "the maps are not detached: a gradient flows through S.": attached,
    }


def _swap(
    source: Tensor, target: Tensor, half_width: int, *, phase: bool = False, centred: bool = True, short: int = 0
) -> Tensor:
    """Stylisation with one of the slips of the hints."""
    spectra = [torch.fft.fft2(images) for images in (source, target)]
    if centred:
        spectra = [torch.fft.fftshift(spectrum, dim=(2, 3)) for spectrum in spectra]
    spectrum, style = spectra
    row, column = (side // 2 if centred else half_width for side in source.shape[2:])
    window = (
        ...,
        slice(row - half_width, row + half_width + 1 - short),
        slice(column - half_width, column + half_width + 1 - short),
    )
    spectrum = spectrum.clone()
    spectrum[window] = torch.polar(style[window].abs(), (style if phase else spectrum)[window].angle())
    if centred:
        spectrum = torch.fft.ifftshift(spectrum, dim=(2, 3))
    return torch.fft.ifft2(spectrum).real
