"""Notebook 60: class balance, gradient reversal, PixAdv, Fourier stylisation; what a class of a street weighs."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

import fsslib as fss
from fsslib.teaching.exercises import Exercise
from fsslib.teaching.plots import DPI, INK, SCORE_MAP, colour_bar, draw_image, outline, plain


def label_maps():
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.6, 0.25, 0.1, 0.05]), 3 * 6 * 8, replacement=True, generator=generator)
    labels = labels.view(3, 6, 8)
    yield "3 images of 4 classes", labels, 4
    labels = labels.clone()
    labels[:, 1:3, 2:7], labels[2, :4] = fss.VOID, fss.VOID
    yield "with void pixels", labels, 4
    yield "one class alone", torch.ones(1, 4, 4, dtype=torch.int64), 3
    yield "nothing but void", torch.full((2, 4, 4), fss.VOID), 3


@Exercise(label_maps, "agrees with the library, with void pixels, one class alone and nothing but void", "hard", 15)
def class_balance(y, classes):
    """(labels [B, H, W], num_classes) -> B [B, H, W], 0 where the label is void"""
    right, valid = fss.class_balance_map(y, classes), y != fss.VOID
    share, numbers = torch.where(valid, 1 - right, 0), 1 - (1 - right) * valid.sum((1, 2), keepdim=True)
    batch = torch.bincount(y[valid], minlength=classes) / valid.sum().clamp(min=1)
    present = torch.tensor([len(labels[labels != fss.VOID].unique()) for labels in y]).clamp(min=1)[:, None, None]
    counted, of_batch = fss.class_balance_map(y, classes, count_ignored=True), 1 - batch[y.clamp(max=classes - 1)]
    return {
        "right": right,
        "this is the share of the class: frequent classes come out high. B is 1 minus it.": share,
        "void pixels (255) have a weight; set it to 0.": right.where(valid, 1.0),
        "void pixels count in the number of pixels; divide by those that have a label.": counted,
        "the shares are those of the whole batch; each image has its own.": valid * of_batch,
        "this is 1 over the share; B is 1 minus it, and stays below 1.": valid / share.where(valid, 1),
        "all classes of an image get the same; take the share of each pixel's own class.": valid * (1 - 1 / present),
        "this is the number of pixels, not their share: divide by the pixels with a label.": valid * numbers,
    }


def tensors():
    generator = torch.Generator().manual_seed(0)
    for strength in (0.3, 1.0, 2.5, 0.0):
        yield f"strength {strength:g}", torch.randn(3, 4, 5, generator=generator), strength


@Exercise(tensors, "changes nothing forward and turns the gradient round, at 4 strengths", "medium", 10, gradients=(0,))
def reversal(x, strength):
    """(x, strength) -> x, whose gradient comes back times -strength"""
    still = x.detach()
    return {
        "right": fss.gradient_reversal(x, strength),
        "the sign is already turned on the way forward; there the function changes nothing.": -x,
        "the strength is already there on the way forward; there the function changes nothing.": -strength * x,
        "the gradient comes back unchanged: this is the plain identity.": 1 * x,
        "the gradient is scaled but not reversed.": (1 - strength) * still + strength * x,
        "the gradient is reversed but not scaled by the strength.": 2 * still - x,
        "one identity too many: the parts with a gradient should add up to -strength x.": x + strength * (still - x),
    }


def judged():
    for case, labels, classes in label_maps():
        generator = torch.Generator().manual_seed(len(labels))
        logits = torch.randn(len(labels), classes, *labels.shape[1:], generator=generator)
        yield case, logits, torch.randn(logits[:, :1].shape, generator=generator), labels


@Exercise(
    judged,
    "agrees with the library in value and gradient, and is 0 where there is nothing but void",
    "hard",
    20,
    gradients=(0, 1),
)
def pixadv(z, d, y):
    """(logits [B, C, H, W], discriminator_logits [B, 1, H, W], labels [B, H, W]) -> loss, one number"""
    valid, fooling, loss = y != fss.VOID, F.softplus(d[:, 0]), fss.pixadv_loss
    pixels = valid.sum().clamp(min=1)
    hard, rare = fss.pixel_difficulty_map(z.detach(), y), fss.class_balance_map(y, z.shape[1])
    right, still, sure = loss(z, d, y), loss(z, d.detach(), y), d[:, 0].sigmoid()
    return {
        "right": right,
        "the discriminator is told the truth, softplus(-d); to fool it is softplus(d).": loss(z, -d, y),
        "S is missing: weigh by the difficulty.": loss(z, d, y, use_difficulty=False),
        "B is missing: weigh by the balance.": loss(z, d, y, use_balance=False),
        "void pixels count in the mean; divide by the pixels that have a label.": loss(z, d, y, reduce="all"),
        "void pixels count in B: its shares are of the pixels that have a label.": loss(z, d, y, count_ignored=True),
        "the weights are divided by their mean; that is a switch, and off here.": loss(z, d, y, normalise_map=True),
        "the discriminator's logits are detached too: that is the way the gradient should take.": still,
        "A is missing: this weighs pixels and fools nobody.": (hard * rare).sum() / pixels,
        "A is a probability here; it is softplus(d), minus log P(source).": (sure * hard * rare).sum() / pixels,
        "the maps are added; they are weights, multiply them.": (fooling * valid + hard + rare).sum() / pixels,
        "the maps are not detached: a gradient flows through S.": loss(z, d, y, detach_maps=False),
        "this is a sum over the pixels; take the mean over those that have a label.": right * pixels,
    }


def pictures():
    generator = torch.Generator().manual_seed(0)
    for half_width, height, width in ((0, 8, 8), (1, 9, 13), (3, 12, 16)):
        yield f"half_width {half_width}", *torch.rand(2, 2, 3, height, width, generator=generator), half_width


@Exercise(pictures, "agrees with the library for half widths 0, 1 and 3", "hard", 20)
def fourier_stylise(source, target, half_width):
    """(source [B, 3, H, W], target [B, 3, H, W], half_width) -> images [B, 3, H, W], all of one size"""
    size, rows, columns = source.shape[2:], torch.arange(-half_width, half_width + 1), torch.arange(half_width + 1)

    def swap(rows=rows, columns=rows, forth=torch.fft.fft2, back=torch.fft.ifft2, amplitude=1.0, phase=None):
        """Unshifted, the window are the rows and columns from -half_width on: their last ones come first."""
        ours, theirs = forth(source), forth(target)
        window = (..., rows[:, None], columns)
        size = torch.lerp(ours[window].abs(), theirs[window].abs(), amplitude)
        ours[window] = torch.polar(size, (ours if phase is None else theirs)[window].angle())
        return back(ours)

    def twice_shifted(spectrum):
        return torch.fft.ifft2(torch.fft.fftshift(torch.fft.fftshift(spectrum, (2, 3)), (2, 3)))

    def half_back(spectrum):
        return torch.fft.irfft2(spectrum, size)

    short, exchanged = rows[:-1], fss.fourier_stylise(target, source, half_width)
    corner, half = torch.arange(2 * half_width + 1), {"columns": columns, "forth": torch.fft.rfft2}
    return {
        "right": fss.fourier_stylise(source, target, half_width),
        "nothing changed.": source,
        "these are the target's images with the source's amplitudes: exchange the two.": exchanged,
        "the values are clipped to [0, 1]: that undoes a part of the swap.": swap().real.clamp(0, 1),
        "the phases are the target's, too: keep the source's.": swap(phase="target").real,
        "the window lies in a corner of the spectrum: torch.fft.fftshift brings low frequencies to the centre, "
        "ifftshift puts them back.": swap(corner, corner).real,
        "fftshift twice moves a spectrum of odd size by a bin: ifftshift puts it back.": swap(back=twice_shifted).real,
        "the window is one bin short: from centre - half_width to centre + half_width is 2 half_width + 1.": swap(
            short, short
        ).real,
        "the amplitudes are the mean of both; take the target's.": swap(amplitude=0.5).real,
        "the result is complex: its imaginary part is rounding, take .real.": swap(),
        "irfft2 has guessed an even width: tell it the size of the source.": swap(back=torch.fft.irfft2, **half),
        "the rows of negative waves are missing: the last half_width rows belong to the window.": swap(
            columns, back=half_back, **half
        ),
    }


def class_weights(batch: fss.LabelledImages, difficulty: Tensor, class_names: Mapping[int, str]):
    """A widget that picks a class in one of several scenes and shows its share, its balance B and its difficulty S.

    `difficulty` [B, H, W] is `pixel_difficulty_map` of a segmenter's logits; B follows from the labels. Raises
    ValueError when the map does not have a number for each pixel.
    """
    if difficulty.shape != batch.labels.shape:
        raise ValueError(
            f"The difficulty map has the shape {tuple(difficulty.shape)}, the labels {tuple(batch.labels.shape)}: "
            "one number is needed for each pixel."
        )
    names, difficulties = list(class_names.values()), difficulty.detach()
    balances = fss.class_balance_map(batch.labels, len(names))

    def draw(class_name: str, scene: int) -> tuple[str, Figure]:
        labels, balance, difficulty = batch.labels[scene], balances[scene], difficulties[scene]
        marked, valid = labels == names.index(class_name), labels != fss.VOID
        words = f"There is no {class_name} in this scene."
        if marked.any():
            share, others = 100 * marked.sum() / valid.sum(), difficulty[valid & ~marked]
            beside = f", {others.mean():.2f} on all others" if len(others) else ""
            words = f"{class_name}: {share:.2f} % of the labelled pixels, B = {balance[marked][0]:.3f}; "
            words += f"S = {difficulty[marked].mean():.2f} on average{beside}."
        return words, show_class_weights(batch.images[scene], marked, balance, difficulty)

    return fss.widgets.Explorer("Class weights", draw, {"class_name": names, "scene": (0, len(batch) - 1)}, scene=0)


def show_class_weights(
    image: Tensor, marked: Tensor, balance: Tensor, difficulty: Tensor, *, side: float = 1.5
) -> Figure:
    """A street [3, H, W] and its balance and difficulty maps [H, W], with the pixels of one class standing out.

    B is drawn from 0 to 1, S from 0 to 3; `side` is a height in inches.
    """
    size = (3 * side * image.shape[2] / image.shape[1] + 1.2, side + 0.4)
    figure, axes = plt.subplots(1, 3, figsize=size, dpi=DPI, layout="compressed")
    draw_image(axes[0], image, marked.long()).set_title("the class", fontsize=9, color=INK, pad=4)
    for ax, values, title, top in zip(axes[1:], (balance, difficulty), ("B: balance", "S: difficulty"), (1, 3)):
        plain(ax).imshow(values.cpu().numpy(), cmap=SCORE_MAP, vmin=0, vmax=top, interpolation="nearest")
        outline(ax, marked.long(), "white")
        ax.set_title(title, fontsize=9, color=INK, pad=4)
        colour_bar(figure, [ax], (0, top))
    return figure
