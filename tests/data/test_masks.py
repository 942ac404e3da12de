"""Masks of one class, white on black: which pixels they mark, and what would be read wrong and is refused. 2 s."""

import numpy as np
import pytest
from PIL import Image

from fsslib.data.decode import DataError
from fsslib.data.masks import read_mask
from tests.data.encoded import NOISE, RAMP, deep_png, encoded, grey, with_palette

BRIGHT = np.repeat(RAMP, 4, axis=0) >= 128
MARKED = BRIGHT * np.uint8(255)
SOFT = np.where(np.arange(16)[:, None] == 8, np.arange(256), BRIGHT * 255)
MASKS = {
    **{mode: encoded(MARKED, mode=mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    **{f"grey of {n}": encoded((BRIGHT * n).astype(np.uint8 if n < 256 else np.uint16)) for n in (128, 255, 65535)},
    "white of 255 in 16 bits": encoded((BRIGHT * 255).astype(np.uint16)),
    "soft, 8 bits": encoded(SOFT.astype(np.uint8)),
    "soft, 12 bits in 16": encoded((-(-SOFT * 4095 // 255)).astype(np.uint16)),
    "soft, 16 bits": encoded((SOFT * 257).astype(np.uint16)),
    "soft, 8 bits in 16": encoded(SOFT.astype(np.uint16)),
    "soft, 48 bits": deep_png(grey(SOFT * 257)),
    "dots of grey": encoded(np.where(BRIGHT, 255, (np.indices(BRIGHT.shape) % 4 == 0).all(0) * 99).astype(np.uint8)),
    "JPEG": encoded(MARKED, "JPEG", quality=30),
    "JPEG in colours": encoded(MARKED, "JPEG", "RGB"),
    "JPEG on a background of 15": encoded(np.where(BRIGHT, 255, 15).astype(np.uint8), "JPEG", quality=100),
    "black cut out": encoded(np.dstack([grey(MARKED), MARKED])),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_mode_and_depth_are_parted_at_half_of_white(tmp_path, kind):
    (tmp_path / "mask").write_bytes(MASKS[kind])
    assert np.array_equal(read_mask(tmp_path / "mask"), BRIGHT)


def test_an_empty_mask_marks_nothing(tmp_path):
    (tmp_path / "mask").write_bytes(encoded(MARKED * 0))
    assert not read_mask(tmp_path / "mask").any()


def test_soft_edges_in_colours_are_parted_as_released_loaders_do(tmp_path):
    # The elephants of FSS-1000: RGBA, with colours that differ a little at the edges.
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 1)).repeat(4, axis=2)
    values[..., :3] += np.random.default_rng(1).integers(-9, 10, (64, 64, 3))
    values[:, :24], values[:, 32:] = 0, 255
    values[..., 3] = 255
    image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    image.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), np.array(image.convert("L")) >= 128)


TWO = np.tile(np.arange(64) // 16 % 3, (20, 1))


def beside(tone: int, white: int = 255, kind: str = "PNG") -> bytes:
    """A third black, a third white, a third of a tone."""
    return encoded(np.choose(TWO, (0, white, tone)).astype(np.uint8 if white == 255 else np.uint16), kind)


COLOURED = np.broadcast_to(np.uint8((180, 120, 90)), (20, 20, 3)).copy()
NO_MASKS = {
    "white cut out": (encoded(np.dstack([grey(MARKED | 255), MARKED])), "transparent where it is white"),
    "black ink on nothing": (encoded(np.dstack([grey(MARKED * 0), MARKED])), "transparent"),
    "VOC's palette": (with_palette(RAMP > 250, [(0, 0, 0), (192, 128, 128)]), "picture in colours, .*a palette"),
    "a palette in dark red": (with_palette(RAMP > 250, [(0, 0, 0), (128, 0, 0)]), "picture in colours, .*a palette"),
    "fractions": (encoded((RAMP / 255).astype(np.float32), "TIFF"), "fractions"),
    "a photograph": (encoded(COLOURED), "is a picture in colours, and no black and white mask"),
    "a photograph in grey": (encoded(NOISE[..., 0]), "picture in greys"),
    "the image beside black": (encoded(np.where(BRIGHT, RAMP[0], 0).astype(np.uint8)), "picture in greys"),
    "numbers": (encoded(BRIGHT.astype(np.uint8)), "is all dark: its brightest pixel has 1,"),
    "grey of 100 beside white": (beside(100), "a tone of 100 "),
    "red beside white": (encoded(np.choose(TWO[..., None], (0, 255, (255, 0, 0))).astype(np.uint8)), "a tone of 76 "),
    "a number beside white": (beside(7), "a tone of 7 "),
    "255 beside 65535": (beside(255, 65535), "a tone of 1 "),
    "JPEG on a background of 16": (
        encoded(np.where(BRIGHT, 255, 16).astype(np.uint8), "JPEG", quality=100),
        "a tone of 16 ",
    ),
    "PNG on a background of 15": (encoded(np.where(BRIGHT, 255, 15).astype(np.uint8)), "a tone of 15 "),
    "cut short": (encoded(SOFT.astype(np.uint8))[:90], "cannot be read"),
    "nothing": (b"", "cannot be read"),
}


@pytest.mark.parametrize("kind", NO_MASKS)
def test_masks_that_would_be_read_wrong_are_refused(tmp_path, kind):
    content, message = NO_MASKS[kind]
    (tmp_path / "mask").write_bytes(content)
    with pytest.raises(DataError, match=rf"mask .*{message}.*([Rr]estore|Save it)"):
        read_mask(tmp_path / "mask")
