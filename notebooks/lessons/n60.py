"""Notebook 60: balance over a batch, reversal pixel by pixel, PixAdv with an even weight, stylisation halfway; what a
class of a street weighs."""

from collections.abc import Mapping
from functools import partial

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


@Exercise(label_maps, "is right, with void pixels, one class alone and nothing but void", "medium", 15)
def batch_balance(y, classes):
    """(labels [B, H, W], num_classes) -> B [B, H, W] by the shares in the whole batch, 0 where the label is void"""
    valid = y != fss.VOID
    right = fss.class_balance_map(y.flatten(0, 1)[None], classes).view_as(y)
    share, of_each = torch.where(valid, 1 - right, 0), fss.class_balance_map(y, classes)
    in_each = torch.stack([torch.bincount(one[one != fss.VOID], minlength=classes) for one in y]).double()
    in_each = (in_each / in_each.sum(1, keepdim=True).clamp(min=1)).mean(0)
    by_image, present = valid * (1 - in_each[y.clamp(max=classes - 1)]), max(len(y[valid].unique()), 1)
    numbers, counted = (torch.where(valid, 1 - share * valid.sum() / n, 0) for n in (1, y.numel()))
    return {
        "right": right,
        "this is the share of the class: frequent classes come out high. B is 1 minus it.": share,
        "void pixels (255) have a weight; set it to 0.": right.where(valid, 1.0),
        "void pixels count in the number of pixels; divide by those that have a label.": counted,
        "each image has its own shares here; those of the whole batch are asked for.": of_each,
        "an image with few labels weighs as much as one with many: count pixels over the batch.": by_image,
        "this is 1 over the share; B is 1 minus it, and stays below 1.": valid / share.where(share > 0, 1),
        "all classes get the same; take the share of each pixel's own class.": valid * (1 - 1 / present),
        "this is the number of pixels, not their share: divide by the pixels with a label.": numbers,
    }


def tensors():
    generator = torch.Generator().manual_seed(0)
    for channels, scale in ((3, 2.5), (1, 1.0), (2, 0.0)):
        x, weights = (torch.randn(2, count, 4, 5, generator=generator) for count in (channels, 1))
        yield f"{channels} channels, weights up to {scale:g}", x, scale * weights[:, 0].sigmoid()


@Exercise(tensors, "changes nothing forward and turns the gradient round, pixel by pixel", "medium", 10, gradients=(0,))
def reversal_by_pixel(x, weights):
    """(x [B, C, H, W], weights [B, H, W]) -> x, whose gradient comes back times -weights, pixel by pixel"""
    still, w = x.detach(), weights[:, None]
    return {
        "right": (1 + w) * still - w * x,
        "the sign is already turned on the way forward; there the function changes nothing.": -x,
        "the weights are already there on the way forward; there the function changes nothing.": -w * x,
        "the gradient comes back unchanged: this is the plain identity.": 1 * x,
        "the gradient is weighed but not reversed.": (1 - w) * still + w * x,
        "the gradient is reversed but not weighed.": 2 * still - x,
        "all pixels have the mean weight; each has its own.": fss.gradient_reversal(x, w.mean().item()),
        "one identity too many: the parts with a gradient should add up to -weights x.": x + w * (still - x),
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
def even_pixadv(z, d, y):
    """(logits [B, C, H, W], discriminator_logits [B, 1, H, W], labels [B, H, W]) -> PixAdv, its weights 1 on average"""
    valid, fooling = y != fss.VOID, F.softplus(d[:, 0])
    loss = partial(fss.pixadv_loss, normalise_map=True)
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
        "the weights are not divided by their mean over the pixels that have a label.": fss.pixadv_loss(z, d, y),
        "the discriminator's logits are detached too: that is the way the gradient should take.": still,
        "A is missing: this weighs pixels and fools nobody.": (hard * rare).sum() / pixels,
        "A is a probability here; it is softplus(d), minus log P(source).": (sure * hard * rare).sum() / pixels,
        "the maps are added; they are weights, multiply them.": (fooling * valid + hard + rare).sum() / pixels,
        "the maps are not detached: a gradient flows through S.": loss(z, d, y, detach_maps=False),
        "this is a sum over the pixels; take the mean over those that have a label.": right * pixels,
    }


def pictures():
    generator = torch.Generator().manual_seed(0)
    for half_width, height, width, share in ((0, 8, 8, 0.5), (1, 9, 13, 0.3), (3, 12, 16, 0.8)):
        images = torch.rand(2, 2, 3, height, width, generator=generator)
        yield f"half_width {half_width}, share {share}", *images, half_width, share


@Exercise(pictures, "is right for half widths 0, 1 and 3", "hard", 20)
def stylise_halfway(source, target, half_width, share):
    """(source [B, 3, H, W], target [B, 3, H, W], half_width, share) -> images [B, 3, H, W], amplitudes in proportion"""
    size, rows, columns = source.shape[2:], torch.arange(-half_width, half_width + 1), torch.arange(half_width + 1)

    def swap(rows=rows, columns=rows, forth=torch.fft.fft2, back=torch.fft.ifft2, share=share, phase=None):
        """Unshifted, the window are the rows and columns from -half_width on: their last ones come first."""
        ours, theirs = forth(source), forth(target)
        window = (..., rows[:, None], columns)
        size = ours[window].abs() ** (1 - share) * theirs[window].abs() ** share
        ours[window] = torch.polar(size, (ours if phase is None else theirs)[window].angle())
        return back(ours)

    def twice_shifted(spectrum):
        return torch.fft.ifft2(torch.fft.fftshift(torch.fft.fftshift(spectrum, (2, 3)), (2, 3)))

    def half_back(spectrum):
        return torch.fft.irfft2(spectrum, size)

    short, stylised = rows[:-1], fss.fourier_stylise(source, target, half_width)
    corner, half = torch.arange(2 * half_width + 1), {"columns": columns, "forth": torch.fft.rfft2}
    return {
        "right": swap().real,
        "nothing changed.": source,
        "these are the target's amplitudes entirely; the share is not used.": stylised,
        "the values are clipped to [0, 1]: that undoes a part of the swap.": swap().real.clamp(0, 1),
        "the phases are the target's, too: keep the source's.": swap(phase="target").real,
        "the window lies in a corner of the spectrum: the slow waves are at both ends of each axis.": swap(
            corner, corner
        ).real,
        "fftshift twice moves a spectrum of odd size by a bin: ifftshift puts it back.": swap(back=twice_shifted).real,
        "the window is one bin short: from -half_width to half_width is 2 half_width + 1.": swap(short, short).real,
        "the share is the target's; here it is the source's.": swap(share=1 - share).real,
        "amplitudes are added in parts; in proportion it is |x| ** (1 - s) |t| ** s.": source.lerp(stylised, share),
        "the result is complex: its imaginary part is rounding, take .real.": swap(),
        "irfft2 has guessed an even width: tell it the size of the source.": swap(back=torch.fft.irfft2, **half),
        "the rows of negative waves are missing: the last half_width rows.": swap(columns, back=half_back, **half),
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
