"""Whether a picture is a label map, a mask in two tones with soft borders, or a photograph: by how flat it is."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import label, laplace, maximum, maximum_filter, minimum_filter

from fsslib.data.decode import DataError

GRADED, STILL = 0.09, 0.7
"""In a label map fewer pixels at borders have a value between their neighbours', and more of all pixels lie still, in a
square of 2 x 2 equal ones. Measured on 164 label maps, lines of one pixel and cells of three among them: at most 0.0896
and at least 0.73. Of 625 blurred or lossy masks all but nine have more than 0.1 graded, half more than 0.46."""

GREY, TEXTURE, RESTLESS = 0.5, 0.003, 0.05
"""A photograph has more pixels that are neither dark nor bright, or more that are grey and rough away from borders of
dark and bright, or less that lie still. Of 1,053 masks that were lossy once, in 16 ways at three sizes, 22 are refused
or read wrong, tiny ones with a wide blur; of 892 photographs 14 pass, all of them cut out, dithered, stretched or
scaled, and none as a camera made it."""

TRACE = 0.06
"""Share of the brightest value that a lossy format leaves in black or takes from white, at most so FAR from borders."""

FAR = 31
PLAIN, LOST = 6, 0.05
"""A lossy format leaves few squares of so many equal dark pixels, two levels or more of 255 off the background: their
levels off it add up to less than this a pixel. Of 420 lossy or blurred masks of VOC's objects at most 0.039; of VOC's
numbers with their rim at least 0.08, but for the worst JPEG and the widest blur."""

SPOT = 20
"""A spot of so many pixels, so many levels of 255 above the background and nowhere half bright, may have been meant."""

Values = Shaped[np.ndarray, "H W"]
Pixels = Bool[np.ndarray, "H W"]


def still(values: Values) -> Pixels:
    """Pixels in a square of 2 x 2 equal ones."""
    across, down = _steps(values)
    squares = np.pad(~(across[1:] | across[:-1] | down[:, 1:]), 1)
    return squares[1:, 1:] | squares[1:, :-1] | squares[:-1, 1:] | squares[:-1, :-1]


def _steps(values: Values) -> tuple[Bool[np.ndarray, "H w"], Bool[np.ndarray, "h W"]]:
    """Where a pixel differs from the one before it, along a row and along a column."""
    return values[:, 1:] != values[:, :-1], values[1:] != values[:-1]


def plain(values: Values, side: int = PLAIN) -> Pixels:
    """Pixels around which all are equal."""
    return maximum_filter(values, side) == minimum_filter(values, side)


def is_drawn(dark: Pixels, bright: Pixels, values: Values) -> bool:
    """Whether pixels that are nearly black were meant, and are not what a lossy format left beside bright ones."""
    return bool(still(values)[dark].mean() > 0.5 and dark.sum() >= 0.01 * bright.sum())


def is_label_map(codes: Values, seen: Values, distinct: int) -> bool:
    """Whether a picture has constant regions, without steps from one to the next, or has one value, or black and one.

    `codes` tell its `distinct` colours or numbers apart, `seen` is how bright they look.
    """
    calm, peak = still(codes), seen.max()
    if distinct <= 2 or calm.mean() < STILL:
        return bool(calm.mean() >= STILL or distinct == 1 or (distinct == 2 and seen.min() == 0))
    dark, bright = (seen > 0) & (seen <= TRACE * peak), seen >= (1 - TRACE) * peak
    if dark.any() and ((seen == 0) | dark | bright).all():
        far = (dark & ~maximum_filter(bright, 2 * FAR + 1)).any()
        if not far and ((bright & (seen < peak)).any() or not is_drawn(dark, bright, codes)):
            return False
    here, around = seen[~calm], sliding_window_view(np.pad(seen, 1, mode="edge"), (3, 3))[~calm]
    graded = (around.min((1, 2)) < here) & (here < around.max((1, 2)))
    across, down = (np.pad(steps, pad) for steps, pad in zip(_steps(codes), (((0, 0), (1, 1)), ((1, 1), (0, 0)))))
    border = across[:, 1:] | across[:, :-1] | down[1:] | down[:-1]
    return bool(graded.sum() <= GRADED * border.sum())


def middle_of_two_tones(seen: Values, distinct: int, file: Path) -> tuple[float, int]:
    """The value half way from black to the brighter tone of a mask with soft or noisy borders, and how many spots of
    their own lie below it.

    Raises DataError, naming the `file`, for photographs, noise, and label maps that were scaled or in a JPEG.
    """
    most = float(seen.max())
    level = (seen * (255 / most)).round().astype(np.uint8)
    calm = still(level)
    peak = level[calm & (level >= 128)].max(initial=0) or 255  # borders in a JPEG are brighter than what they bound
    level = np.minimum(np.arange(256) * (255 / peak), 255).astype(np.uint8)[level]
    rough = (level > 51) & (level < 204) & (np.abs(laplace(level.astype(np.int16), mode="nearest")) >= 16)
    if rough.mean() > TEXTURE:  # seldom: looking around each pixel takes longest
        rough &= plain(level >= 128, 5)
    grey, constant = (np.bincount(values, minlength=256)[26:230] for values in (level.ravel(), level[calm]))
    several = (
        f"{file} has several tones with blurred borders. A label map that was saved as JPEG, or scaled, has lost its "
        "numbers: save it as PNG at its own size, or the object alone in white on black."
    )
    if calm.mean() > 0.5 and ((grey > 0.002 * level.size) & (2 * constant > grey)).any():
        raise DataError(several)
    if grey.sum() > GREY * level.size or rough.mean() > TEXTURE or calm.mean() < RESTLESS or distinct <= 2:
        raise DataError(
            f"{file} looks like a photograph, or like noise, and a mask is black where the object is not. Name first "
            "the picture and then its mask, a PNG with the object in white on black."
        )
    floor = np.bincount(level[level < 128], minlength=1).argmax()
    above = np.abs(level.astype(np.int16) - floor)
    if above[(level < 128) & (above > 1) & plain(level)].sum() > LOST * level.size:
        raise DataError(several)
    parts, count = label(level >= floor + SPOT)
    brightest, areas = maximum(level, parts, range(1, count + 1)), np.bincount(parts.ravel())[1:]
    return 0.5 * peak / 255 * most, int(((np.asarray(brightest) < 128) & (areas >= SPOT)).sum())
