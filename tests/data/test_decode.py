"""What is made of image files: pictures of any depth, label maps in any palette, maps of colours. 2 s."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsslib.data.decode import (
    PALETTES,
    DataError,
    as_rgb,
    colour_codes,
    noting,
    read_image,
    read_label_map,
    read_with,
    refuse,
    voc_palette,
)
from fsslib.data.quirks import CITYSCAPES, TRAIN_ID_COLOURS
from tests.data.encoded import NOISE, RAMP, deep_png, deep_tiff, encoded, grey, png, with_palette


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "file"


COLOUR_RAMP = np.dstack([RAMP, RAMP[:, ::-1], np.full_like(RAMP, 128)])
RED = np.dstack([RAMP * 0 + 255, RAMP * 0, RAMP * 0, RAMP]).astype(np.uint8)
"""With alpha from 0 to 255."""

PICTURES = {
    "grey of 8 bits": (encoded(RAMP.astype(np.uint8)), grey(RAMP)),
    "12 bits in 16": (encoded((RAMP * 4095 // 255).astype(np.uint16)), grey(RAMP)),
    "16 bits": (encoded((RAMP * 257).astype(np.uint16)), grey(RAMP)),
    "8 bits in 16": (encoded(RAMP.astype(np.uint16)), grey(RAMP)),
    "16 bits in big-endian TIFF": (encoded((RAMP * 257).astype(">u2"), "TIFF"), grey(RAMP)),
    "32 bits in TIFF, 12 used": (encoded((RAMP * 4095 // 255).astype(np.int32), "TIFF"), grey(RAMP)),
    "1 bit": (encoded((RAMP > 99).astype(np.uint8) * 255, mode="1"), grey((RAMP > 99) * 255)),
    "RGBA": (encoded(RED), np.dstack([RAMP * 0 + 255, 255 - RAMP, 255 - RAMP])),
    "LA": (encoded(np.dstack([RAMP * 0, RAMP]).astype(np.uint8)), grey(255 - RAMP)),
    "a transparent colour": (encoded(np.uint8([[2, 2]]), mode="P", transparency=2), np.full((1, 2, 3), 255)),
    "lossless WebP": (encoded(COLOUR_RAMP.astype(np.uint8), "WEBP", lossless=True), COLOUR_RAMP),
    "48 bits": (deep_png(COLOUR_RAMP * 257), COLOUR_RAMP),
    "64 bits": (deep_png(np.dstack([COLOUR_RAMP * 257, RAMP * 0 + 65535]), colour_type=6), COLOUR_RAMP),
    "48 bits in TIFF": (deep_tiff(COLOUR_RAMP * 257), COLOUR_RAMP),
    "48 bits with a white pixel": (deep_png(grey(np.eye(2, dtype=int) * 65535)), grey(np.eye(2) * 255)),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_of_every_kind_come_in_rgb(path, kind):
    content, expected = PICTURES[kind]
    path.write_bytes(content)
    assert np.abs(read_image(path).permute(1, 2, 0).numpy() - expected).max() <= 1


def test_a_cmyk_jpeg_keeps_its_colours(path):
    halves = np.zeros((16, 32, 3), dtype=np.uint8)
    halves[:, :16], halves[:, 16:] = (255, 0, 0), (0, 0, 255)
    path.write_bytes(encoded(halves, "JPEG", "CMYK", quality=95))
    read = read_image(path).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(read - halves)[:, [4, 27]].max() < 8


@pytest.mark.parametrize(("values", "hot"), [(RAMP * 16, 2**16 - 1), (grey(RAMP * 128), 2**16 - 1)], ids=["16", "48"])
def test_one_hot_pixel_makes_a_picture_of_fewer_bits_darker(path, values, hot):
    """A limit that the docstring names."""
    values = values.copy()
    values[0, 0] = hot
    path.write_bytes(deep_png(values, colour_type=2 if values.ndim == 3 else 0))
    expected = values // 256 if values.ndim == 3 else values * 255 // hot
    assert np.abs(read_image(path)[0].numpy() - expected.reshape(4, 256, -1)[..., 0]).max() <= 1


@pytest.mark.parametrize("upright", [False, True])
def test_a_picture_of_16_bits_is_turned_upright_where_that_is_asked_for(path, upright):
    turned = Image.Exif()
    turned[0x0112] = 6
    path.write_bytes(encoded((RAMP * 257).astype(np.uint16), exif=turned))
    read = read_with(path, lambda image: as_rgb(image, path, upright=upright))
    assert read.shape == ((3, 256, 4) if upright else (3, 4, 256))


AVIF = encoded(COLOUR_RAMP.astype(np.uint8), "AVIF")
WHITE_IS_0 = encoded((RAMP * 257).astype(np.uint16), "TIFF", tiffinfo={262: 0})
NO_PICTURES = {
    "12 bits in 48": (deep_png(COLOUR_RAMP * 4095 // 255), "colours of 16 bits and uses fewer"),
    "8 bits in 48": (deep_png(COLOUR_RAMP), "colours of 16 bits and uses fewer"),
    "8 bits in 48, TIFF": (deep_tiff(COLOUR_RAMP), "colours of 16 bits and uses fewer"),
    "fractions": (encoded((RAMP / 255).astype(np.float32), "TIFF"), "holds fractions"),
    "negative numbers": (encoded((RAMP - 9).astype(np.int32), "TIFF"), "holds negative numbers"),
    "16 bits of which 0 is white": (WHITE_IS_0, "16 bits of which 0 is white"),
    "a damaged second page": (deep_tiff(COLOUR_RAMP)[:-4] + struct.pack("<I", 14), "cannot be read"),
    "a damaged AVIF": (AVIF[:-150] + b"U" * 150, "cannot be read"),
    "a palette that is missing": (png(2, 2, 8, 3, zlib.compress(b"\0\0\1\0\1\0")), "cannot be read"),
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_what_would_be_read_wrong_is_refused(path, kind):
    content, message = NO_PICTURES[kind]
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"file.*{message}.*([Ss]ave it|restore it)"):
        read_image(path)


# Label maps

NUMBERS = np.zeros((20, 24), dtype=np.uint8)
NUMBERS[2:14, 2:20] = 255
NUMBERS[3:13, 3:19] = 13
SORTED = np.array([0, 13, 255])
PACKED = np.searchsorted(SORTED, NUMBERS)
VOC = voc_palette()
OPAQUE = np.dstack([VOC[NUMBERS], np.full_like(NUMBERS, 255)])
LABEL_MAPS = {
    "as published": with_palette(NUMBERS, VOC),
    "other colours at unused indices": with_palette(NUMBERS, np.where(np.isin(range(256), SORTED)[:, None], VOC, 1)),
    "grey": encoded(NUMBERS),
    "PGM": encoded(NUMBERS, "PPM"),
    "PGM in words": f"P2 24 20 255 {' '.join(map(str, NUMBERS.ravel()))}".encode(),
    "grey with a palette": with_palette(NUMBERS, grey(np.arange(256))),
    "void beyond the palette's end": with_palette(NUMBERS, VOC[:21]),
    **{f"sorted anew in {kind}": with_palette(PACKED, VOC[SORTED], kind) for kind in ("PNG", "GIF", "TIFF", "BMP")},
    "the palette from light to dark": with_palette(2 - PACKED, VOC[SORTED[::-1]]),
    "two indices of one colour": with_palette(PACKED + (np.indices(PACKED.shape)[0] > 7) * 3, VOC[[*SORTED, *SORTED]]),
    **{f"RGB in {kind}": encoded(VOC[NUMBERS], kind) for kind in ("PNG", "BMP")},
    "RGBA, opaque": encoded(OPAQUE),
    "lossless WebP": encoded(VOC[NUMBERS], "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", LABEL_MAPS)
def test_the_same_picture_to_every_viewer_gives_the_published_numbers(path, kind):
    path.write_bytes(LABEL_MAPS[kind])
    assert np.array_equal(read_label_map(path), NUMBERS)


def test_packed_grey_of_8_bits_cannot_be_told(path):
    """A limit that the docstring names: 0, 1 and 2 are VOC's numbers too."""
    path.write_bytes(encoded(PACKED.astype(np.uint8)))
    assert np.array_equal(read_label_map(path), PACKED)


STREETS = np.zeros((35, 3), dtype=np.uint8)
"""A colour of each of Cityscapes' numbers, -1 for several."""
for colour, numbers in PALETTES["cityscapes"].items():
    STREETS[list(numbers)] = colour
BUT_4, SOME = np.arange(35)[:, None] != 4, [33, 23, 13, 11, 8, 7, 0]
OF_TRAIN_IDS = STREETS[[*CITYSCAPES, 0]]
KNOWN = np.uint8([[(128, 64, 128), (220, 20, 60), (70, 130, 180), (119, 11, 32)]])
CAMVID = "808080 800000 c0c080 804080 0000c0 808000 c08080 404080 400080 404000 0080c0 000000"
CAMVID = np.array([[*bytes.fromhex(colour)] for colour in CAMVID.split()])
TUTORIAL = np.where(np.arange(12)[:, None] == 4, (60, 40, 222), CAMVID)
OTHERS = {
    "GTA5": ("cityscapes", with_palette(np.arange(35)[None], STREETS), range(35)),
    "no static objects": ("cityscapes", with_palette(np.arange(35)[None], STREETS * BUT_4), range(35)),
    "streets sorted anew": ("cityscapes", with_palette(np.arange(7)[None], STREETS[SOME]), SOME),
    "train ids": ("cityscapes", with_palette(np.arange(3)[None], OF_TRAIN_IDS), (7, 8, 11)),
    "streets in RGB": ("cityscapes", encoded(KNOWN), (7, 24, 23, 33)),
    "CamVid": ("camvid", encoded(CAMVID[None].astype(np.uint8)), range(12)),
    "CamVid sorted anew": ("camvid", with_palette(np.arange(12)[None], CAMVID[::-1]), range(12)[::-1]),
    "the tutorial's": ("camvid", encoded(TUTORIAL[None].astype(np.uint8)), range(12)),
    "the tutorial's sorted anew": ("camvid", with_palette(np.arange(12)[None], TUTORIAL[::-1]), range(12)[::-1]),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_streets_by_their_palettes(path, kind):
    palette, content, expected = OTHERS[kind]
    path.write_bytes(content)
    assert read_label_map(path, PALETTES[palette]).tolist() == [[*expected]]


def test_train_ids_by_the_colours_of_their_classes(path):
    shown = np.uint8([[*range(19), 255]])
    by_id = np.zeros((256, 3))
    by_id[shown[0]] = OF_TRAIN_IDS
    for content in (with_palette(shown, by_id), with_palette(np.arange(20)[None], OF_TRAIN_IDS)):
        path.write_bytes(content)
        assert np.array_equal(read_label_map(path, TRAIN_ID_COLOURS), shown)


def test_vocs_colours_are_those_of_its_devkit():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 4: (0, 0, 128), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {label: tuple(VOC[label].tolist()) for label in known} == known
    assert VOC[255].tolist() == [224, 224, 192]


CUT_OUT = np.where((NUMBERS == 13)[..., None], (192, 0, 128, 0), OPAQUE).astype(np.uint8)
OFF = VOC[NUMBERS] + (NUMBERS == 13)[..., None].astype(np.uint8)
SECOND = {"save_all": True, "append_images": [Image.fromarray(NUMBERS[::-1])]}
NO_LABEL_MAPS = {
    "grey packed with a palette": (with_palette(PACKED, grey(SORTED)), "is the colour of nothing"),
    **{f"grey of {n} bits": (deep_png(PACKED, n, 0), "grey of fewer than 8 bits") for n in (2, 4)},
    "1 bit": (encoded((NUMBERS == 13).astype(np.uint8) * 255, mode="1"), "mode 1"),
    "grey of 16 bits": (encoded(NUMBERS.astype(np.uint16)), "mode I;16"),
    "grey with alpha": (encoded(NUMBERS, mode="LA"), "mode LA"),
    "fractions": (encoded(NUMBERS.astype(np.float32), "TIFF"), "mode F"),
    "JPEG": (encoded(NUMBERS, "JPEG", quality=100), "is a JPEG"),
    "lossy WebP": (encoded(VOC[NUMBERS], "WEBP", quality=60), "mode RGB"),
    "colours a little off": (encoded(OFF), r"\(193, 1, 129, 255\) is the colour of nothing"),
    "another palette": (with_palette(NUMBERS, VOC[::-1] // 2), "is the colour of nothing"),
    "partly transparent": (encoded(CUT_OUT), r"\(192, 0, 128, 0\)"),
    "sorted anew and cut": (with_palette(PACKED + 1, VOC[[13, 0, 255]]), "uses 3 of a palette that ends before"),
    "a photograph": (encoded(NOISE), "mode RGB, as a picture"),
    "PGM of 20 levels": (b"P5 2 2 20 " + bytes(4), "grey of fewer than 8 bits or levels"),
    "PGM of 20 levels in words": (b"P2 2 2 20 0 1 2 20", "grey of fewer than 8 bits or levels"),
    "two pages": (encoded(NUMBERS, "TIFF", **SECOND), "2 pages or frames"),
    "two frames": (encoded(NUMBERS, **SECOND), "2 pages or frames"),
    "poles": (with_palette(np.ones((3, 3)), STREETS[[7, 17]]), "is the colour of 17 and 18", "cityscapes"),
    "cars": (with_palette(np.ones((3, 3)), STREETS[[7, 26]]), "is the colour of 26 and 34", "cityscapes"),
}


@pytest.mark.parametrize("kind", NO_LABEL_MAPS)
def test_other_label_maps_are_refused(path, kind):
    content, message, *palette = NO_LABEL_MAPS[kind]
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"file .*{message}.*(restore the file|Restore|Save that)"):
        read_label_map(path, *map(PALETTES.get, palette))


CODES = np.tile(np.arange(8, dtype=np.uint8), (3, 1))
EIGHT = ((CODES[..., None] >> np.array([2, 1, 0]) & 1) * 255).astype(np.uint8)
GREY_OF_COLOURS = np.asarray(Image.fromarray(EIGHT).convert("L"))
COLOURS = {
    "RGB": (encoded(EIGHT), CODES),
    "palette": (encoded(EIGHT, mode="P"), CODES),
    "opaque": (encoded(np.dstack([EIGHT, CODES * 0 + 255])), CODES),
    "48 bits": (deep_png(EIGHT * np.uint16(257)), CODES),
    "a little off": (encoded(np.where(EIGHT > 0, 230, 20).astype(np.uint8)), CODES),
    "black and white of 1 bit": (encoded(EIGHT[:, [0, 7]], mode="1"), CODES[:, [0, 7]]),
    "black and white": (encoded(EIGHT[:, [0, 7]], mode="L"), CODES[:, [0, 7]]),
}
NO_COLOURS = {
    "the grey of the colours": (encoded(GREY_OF_COLOURS), "grey levels"),
    "the grey of divers": (encoded(GREY_OF_COLOURS[:, :2]), "grey levels"),
    "numbers": (encoded(CODES), "class numbers .* largest value is 7"),
    "water cut out": (encoded(np.dstack([EIGHT, (CODES > 0) * np.uint8(255)])), "partly transparent"),
    "8 bits in 48": (deep_png(EIGHT), "colours of 16 bits"),
    "a photograph": (encoded(NOISE), "is a picture, or has other colours"),
    "colours halved": (encoded(EIGHT // 2), "is a picture, or has other colours"),
    "little in a dark colour": (encoded(np.pad(EIGHT[:, :2] // 2, ((0, 9), (0, 9), (0, 0)))), "or has other colours"),
}


@pytest.mark.parametrize("kind", COLOURS)
def test_eight_colours_are_told_apart(path, kind):
    content, codes = COLOURS[kind]
    path.write_bytes(content)
    assert np.array_equal(colour_codes(path), codes)


@pytest.mark.parametrize("kind", NO_COLOURS)
def test_other_maps_of_colours_are_refused(path, kind):
    content, message = NO_COLOURS[kind]
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"file .*{message}.*([Ss]ave it|restore)"):
        colour_codes(path)


def test_problems_are_raised_or_noted():
    problems = {"a": "a is cut.", "b": "b is gone."}
    with pytest.raises(DataError, match=r"^a is cut\. 1 more like it\. Copy again\.$"):
        refuse(problems, "Copy again.")
    with noting() as noted:
        refuse(problems, "Copy again.")
        refuse({"c": "c is blank."}, "")
    assert noted == {"a": "a is cut. Copy again.", "b": "b is gone. Copy again.", "c": "c is blank."}
    with pytest.raises(DataError, match=r"^b is gone\. Copy again\.$"):
        refuse({"b": "b is gone."}, "Copy again.")
    refuse({}, "Copy again.")
