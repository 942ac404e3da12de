"""The checks of notebook 60: a right answer passes with one line, a typical slip is refused with its hint. 3 s."""

import pytest
import torch
import torch.nn.functional as F

from fsslib.teaching.exercises import adversarial as checks

VOID = 255


def class_balance(labels, num_classes):
    balance = torch.zeros(labels.shape)
    for image, weights in zip(labels, balance):
        pixels = (image != VOID).sum()
        for c in range(num_classes):
            weights[image == c] = 1 - (image == c).sum() / pixels
    return balance


def reversal(x, strength):
    return (1 + strength) * x.detach() - strength * x


def difficulty(logits, labels):
    chosen = logits.log_softmax(1).gather(1, labels.clamp(max=logits.shape[1] - 1)[:, None])[:, 0]
    return -chosen * (labels != VOID)


def pixadv(logits, discriminator_logits, labels):
    weights = difficulty(logits.detach(), labels) * class_balance(labels, logits.shape[1])
    return (F.softplus(discriminator_logits[:, 0]) * weights).sum() / (labels != VOID).sum().clamp(min=1)


def fourier_stylise(source, target, half_width):
    spectrum, style = (torch.fft.fftshift(torch.fft.fft2(x), dim=(2, 3)) for x in (source, target))
    row, column = (side // 2 for side in source.shape[2:])
    window = (..., slice(row - half_width, row + half_width + 1), slice(column - half_width, column + half_width + 1))
    spectrum[window] = torch.polar(style[window].abs(), spectrum[window].angle())
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(2, 3))).real


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.check_class_balance, class_balance),
        (checks.check_reversal, reversal),
        (checks.check_pixadv, pixadv),
        (checks.check_fourier_stylise, fourier_stylise),
    ],
)
def test_a_right_answer_passes_with_one_line(check, answer, capsys):
    check(answer)
    printed = capsys.readouterr().out
    assert printed.startswith(f"passed: {answer.__name__}")
    assert printed.count("\n") == 1


def of_the_batch(labels, num_classes):
    valid = labels != VOID
    share = torch.bincount(labels[valid], minlength=num_classes) / valid.sum()
    return torch.where(valid, 1 - share[labels.clamp(max=num_classes - 1)], 0)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda y, c: (1 - class_balance(y, c)) * (y != VOID), "this is the share of the class"),
        (lambda y, c: class_balance(y, c).where(y != VOID, 1), "with void pixels: void pixels .255. have a weight"),
        (
            lambda y, c: torch.where(
                y != VOID, 1 - (1 - class_balance(y, c)) * (y != VOID).float().mean((1, 2))[:, None, None], 0
            ),
            "with void pixels: void pixels count in the number",
        ),
        (of_the_batch, "shares are those of the whole batch"),
        (lambda y, c: 1 / (1 - class_balance(y, c)), "1 over the share"),
        (lambda y, c: torch.full(y.shape, 1 - 1 / c), "take the share of each pixel's own class"),
        (lambda y, c: 1 - (1 - class_balance(y, c)) * y[0].numel(), "number of pixels, not their share"),
        (lambda y, c: class_balance(y, c)[:, None], "the shape is"),
        (lambda y, c: None, "Is a return missing"),
        (lambda y, c: class_balance(y, c) ** 2, "values differ"),
        (
            lambda y, c: torch.stack([class_balance(x[None], c)[0] if (x != VOID).any() else x / 0 * 0 for x in y]),
            "nothing but void: .* NaN",
        ),
    ],
)
def test_slips_with_the_balance(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_class_balance(slip)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda x, s: -x, "the sign is already turned"),
        (lambda x, s: -s * x, "the strength is already there"),
        (lambda x, s: x.detach(), "no gradient comes back at all"),
        (lambda x, s: x.clone(), "this is the plain identity"),
        (lambda x, s: (1 - s) * x.detach() + s * x, "scaled but not reversed"),
        (lambda x, s: 2 * x.detach() - x, "not scaled by the strength"),
        (lambda x, s: x + s * (x.detach() - x), "one identity too many"),
        (lambda x, s: x.detach() + s**2 * (x.detach() - x), "values differ"),
    ],
)
def test_slips_with_the_reversal(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_reversal(slip)


def attached(logits, d, labels):
    weights = difficulty(logits, labels) * class_balance(labels, logits.shape[1])
    return (F.softplus(d[:, 0]) * weights).sum() / (labels != VOID).sum().clamp(min=1)


def without(which):
    def slip(logits, d, labels):
        weights = (labels != VOID).float()
        if which != "S":
            weights = weights * difficulty(logits.detach(), labels)
        if which != "B":
            weights = weights * class_balance(labels, logits.shape[1])
        fooling = F.softplus(d[:, 0]) if which != "A" else 1
        return (fooling * weights).sum() / (labels != VOID).sum().clamp(min=1)

    return slip


def added(logits, d, labels):
    maps = F.softplus(d[:, 0]) * (labels != VOID) + difficulty(logits.detach(), labels)
    return (maps + class_balance(labels, logits.shape[1])).sum() / (labels != VOID).sum().clamp(min=1)


def normalised(logits, d, labels):
    weights = difficulty(logits.detach(), labels) * class_balance(labels, logits.shape[1])
    return (F.softplus(d[:, 0]) * weights).sum() / weights.sum().clamp(min=1e-9)


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda z, d, y: pixadv(z, -d, y), "the discriminator is told the truth"),
        (without("S"), "S is missing"),
        (without("B"), "B is missing"),
        (without("A"), "A is missing"),
        (added, "the maps are added"),
        (normalised, "divided by their mean"),
        (lambda z, d, y: pixadv(z, d, y) * (y != VOID).float().mean(), "with void pixels: void pixels count"),
        (attached, "gradient: the maps are not detached"),
        (lambda z, d, y: pixadv(z, d.detach(), y), "gradient: the discriminator's logits are detached"),
        (lambda z, d, y: pixadv(z, d, y) * 2, "values differ"),
        (lambda z, d, y: None, "Is a return missing"),
        (
            lambda z, d, y: pixadv(z, d, y) / ((y != VOID).sum() > 0),
            "nothing but void: .* NaN",
        ),
    ],
)
def test_slips_with_pixadv(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_pixadv(slip)


def variant(*, phase=False, shift=True, short=0):
    def slip(source, target, half_width):
        spectra = [torch.fft.fft2(x) for x in (source, target)]
        centre = [side // 2 for side in source.shape[2:]] if shift else [half_width] * 2
        if shift:
            spectra = [torch.fft.fftshift(x, dim=(2, 3)) for x in spectra]
        window = (..., *(slice(c - half_width, c + half_width + 1 - short) for c in centre))
        spectrum, style = spectra
        spectrum[window] = style[window] if phase else torch.polar(style[window].abs(), spectrum[window].angle())
        return torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(2, 3)) if shift else spectrum).real

    return slip


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        (lambda s, t, w: s, "nothing changed"),
        (lambda s, t, w: fourier_stylise(t, s, w), "exchange the two"),
        (lambda s, t, w: fourier_stylise(s, t, w).clamp(0, 1), "the values are clipped"),
        (variant(phase=True), "half_width 1: the phases are the target's"),
        (variant(shift=False), "half_width 1: the window lies in a corner"),
        (
            lambda s, t, w: variant(short=1)(s, t, w) if w else fourier_stylise(s, t, w),
            "half_width 1: the window is one bin short",
        ),
        (lambda s, t, w: t, "values differ"),
    ],
)
def test_slips_with_the_stylisation(slip, hint):
    with pytest.raises(AssertionError, match=hint):
        checks.check_fourier_stylise(slip)


def test_the_lesson_is_reached_through_the_package():
    from fsslib.teaching import exercises

    assert set(checks.__all__) <= set(dir(exercises))
