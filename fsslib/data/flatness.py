"""Whether a picture is a label map, a mask in two tones with soft borders, or a photograph: by how flat it is."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped
from scipy.ndimage import laplace, maximum_filter, minimum_filter

from fsslib.data.decode import DataError

GRADED, STILL = 0.08, 0.7
"""In a label map fewer pixels at borders have a value between their neighbours', and more of all pixels lie still, in a
square of 2 x 2 equal ones. Measured on 164 label maps, lines of one pixel and cells of three among them: at most 0.076
and at least 0.73. Masks that were blurred or in a JPEG mostly have more than 0.2 graded."""

GREY, TEXTURE, RESTLESS = 0.5, 0.003, 0.05
"""A photograph has more pixels that are neither dark nor bright, or more that are grey and rough away from borders of
dark and bright, or less that lie still. Of 1,053 masks that were lossy once, in 16 ways at three sizes, 22 are refused
or read wrong, tiny ones with a wide blur; of 892 photographs 14 pass, all of them cut out, dithered, stretched or
scaled, and none as a camera made it."""

TRACE = 0.06
"""Share of the brightest value that a lossy format leaves in black or takes from white, at most so FAR from borders."""

FAR = 31

Values = Shaped[np.ndarray, "H W"]
Pixels = Bool[np.ndarray, "H W"]


def still(values: Values) -> Pixels:
    """Pixels in a square of 2 x 2 equal ones."""
    across, down = values[:, 1:] == values[:, :-1], values[1:] == values[:-1]
    squares = across[1:] & across[:-1] & down[:, 1:]
    found = np.zeros(values.shape, dtype=bool)
    for rows in (slice(1, None), slice(None, -1)):
        for columns in (slice(1, None), slice(None, -1)):
            found[rows, columns] |= squares
    return found


def is_drawn(dark: Pixels, bright: Pixels, values: Values) -> bool:
    """Whether pixels that are nearly black were meant, and are not what a lossy format left beside bright ones."""
    return bool(still(values)[dark].mean() > 0.5 and dark.sum() >= 0.01 * bright.sum())


def is_label_map(codes: Values, seen: Values, distinct: int) -> bool:
    """Whether a picture has constant regions, without steps from one to the next.

    `codes` tell its `distinct` colours or numbers apart, `seen` is how bright they look.
    """
    calm, peak = still(codes), seen.max()
    if distinct <= 2 or calm.mean() < STILL:
        return bool(calm.mean() >= STILL)
    dark, bright = (seen > 0) & (seen <= TRACE * peak), seen >= (1 - TRACE) * peak
    if dark.any() and ((seen == 0) | dark | bright).all():
        far = (dark & ~maximum_filter(bright, 2 * FAR + 1)).any()
        if not far and ((bright & (seen < peak)).any() or not is_drawn(dark, bright, codes)):
            return False
    low, high = minimum_filter(seen, 3), maximum_filter(seen, 3)
    graded = ~calm & (seen > low) & (seen < high)
    return bool(graded.sum() <= GRADED * (low < high).sum())


def middle_of_two_tones(seen: Values, distinct: int, file: Path) -> float:
    """The value half way from black to the brighter tone of a mask with soft or noisy borders.

    Raises DataError, naming the `file`, for photographs, noise, and label maps that were scaled or in a JPEG.
    """
    most = float(seen.max())
    level = (seen * (255 / most)).round().astype(np.int16)
    calm = still(level)
    peak = level[calm & (level >= 128)].max(initial=0) or 255  # borders in a JPEG are brighter than what they bound
    level = np.minimum(level * (255 / peak), 255).astype(np.int16)
    bright = level >= 128
    border = minimum_filter(bright, 5) != maximum_filter(bright, 5)
    rough = (np.abs(laplace(level, mode="nearest")) >= 16) & (level > 51) & (level < 204) & ~border
    grey, constant = (np.bincount(values, minlength=256)[26:230] for values in (level.ravel(), level[calm]))
    if calm.mean() > 0.5 and ((grey > 0.002 * level.size) & (2 * constant > grey)).any():
        raise DataError(
            f"{file} has several tones with blurred borders. A label map that was saved as JPEG, or scaled, has lost "
            "its numbers: save it as PNG at its own size, or the object alone in white on black."
        )
    if grey.sum() > GREY * level.size or rough.mean() > TEXTURE or calm.mean() < RESTLESS or distinct <= 2:
        raise DataError(
            f"{file} looks like a photograph, or like noise, and a mask is black where the object is not. Name first "
            "the picture and then its mask, a PNG with the object in white on black."
        )
    return 0.5 * peak / 255 * most
