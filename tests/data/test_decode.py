"""What is made of image files: pictures of any depth, label maps in any palette, maps of colours, masks. 3 s."""

import io
import struct
import zlib

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
)
from fsslib.data.masks import read_mask
from fsslib.data.street_classes import CITYSCAPES_TRAIN_IDS, TRAIN_ID_COLOURS, to_train_ids
from tests.data.camvid_fixture import COLOURS as CAMVID_COLOURS
from tests.data.street_fixture import png
from tests.data.voc_fixture import voc_palette

RAMP = np.tile(np.arange(256), (4, 1))
"""Grey from black to white, [4, 256]."""


def encoded(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **options) -> bytes:
    """An array as an image file; in `mode` (of Pillow) if given."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def deep_png(values: np.ndarray, bits: int = 16, colour_type: int = 2) -> bytes:
    """A PNG of 16 bits a channel, or of grey of fewer bits, which Pillow does not write."""
    rows = values.astype(">u2").tobytes() if bits == 16 else np.packbits(bits_of(values, bits), axis=1).tobytes()
    step = len(rows) // len(values)
    data = b"".join(b"\0" + rows[at : at + step] for at in range(0, len(rows), step))
    return png(values.shape[1], values.shape[0], bits, colour_type, zlib.compress(data))


def bits_of(values: np.ndarray, bits: int) -> np.ndarray:
    places = np.arange(bits)[::-1]
    return (values[..., None] >> places & 1).astype(np.uint8).reshape(len(values), -1)


def deep_tiff(values: np.ndarray) -> bytes:
    """An uncompressed TIFF of three channels of 16 bits, little-endian, which Pillow does not write."""
    height, width, channels = values.shape
    pixels = values.astype("<u2").tobytes()
    after = 8 + 6  # header, bits of each channel
    fields = ((256, width), (257, height), (258, 8), (259, 1), (262, 2), (273, after), (277, 3), (278, height))
    entries = [struct.pack("<HHII", tag, 3 if tag == 258 else 4, channels if tag == 258 else 1, v) for tag, v in fields]
    entries.append(struct.pack("<HHII", 279, 4, 1, len(pixels)))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    return struct.pack("<2sHI", b"II", 42, after + len(pixels)) + struct.pack("<3H", 16, 16, 16) + pixels + directory


def on_top(alpha: np.ndarray) -> np.ndarray:
    """Red with this alpha, RGBA."""
    return np.dstack([np.full_like(alpha, 255), alpha * 0, alpha * 0, alpha]).astype(np.uint8)


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=-1)


COLOUR_RAMP = np.dstack([RAMP, RAMP[:, ::-1], np.full_like(RAMP, 128)])
INDEX_2_OF_3 = np.full((2, 2), 2, dtype=np.uint8)
UPRIGHT = Image.Exif()
UPRIGHT[0x0112] = 6

PICTURES = {
    "grey of 8 bits": (encoded(RAMP.astype(np.uint8)), grey(RAMP)),
    "12 bits in 16": (encoded((RAMP * 4095 // 255).astype(np.uint16)), grey(RAMP)),
    "16 bits": (encoded((RAMP * 257).astype(np.uint16)), grey(RAMP)),
    "8 bits in 16": (encoded(RAMP.astype(np.uint16)), grey(RAMP)),
    "16 bits in big-endian TIFF": (encoded((RAMP * 257).astype(">u2"), "TIFF"), grey(RAMP)),
    "32 bits in TIFF, 12 used": (encoded((RAMP * 4095 // 255).astype(np.int32), "TIFF"), grey(RAMP)),
    "1 bit": (encoded((RAMP > 99).astype(np.uint8) * 255, mode="1"), grey((RAMP > 99) * 255)),
    "RGBA": (encoded(on_top(RAMP)), np.dstack([RAMP * 0 + 255, 255 - RAMP, 255 - RAMP])),
    "LA": (encoded(np.dstack([RAMP * 0, RAMP]).astype(np.uint8)), grey(255 - RAMP)),
    "a transparent colour of a palette": (
        encoded(INDEX_2_OF_3, mode="P", transparency=2),
        np.full((2, 2, 3), 255),
    ),
    "lossless WebP": (encoded(COLOUR_RAMP.astype(np.uint8), "WEBP", lossless=True), COLOUR_RAMP),
    "48 bits": (deep_png(COLOUR_RAMP * 257), COLOUR_RAMP),
    "64 bits": (deep_png(np.dstack([COLOUR_RAMP * 257, RAMP * 0 + 65535]), colour_type=6), COLOUR_RAMP),
    "48 bits in TIFF": (deep_tiff(COLOUR_RAMP * 257), COLOUR_RAMP),
    "48 bits with a white pixel": (deep_png(grey(np.eye(2, dtype=int) * 65535)), grey(np.eye(2) * 255)),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_of_every_kind_come_in_rgb(tmp_path, kind):
    content, expected = PICTURES[kind]
    (tmp_path / "picture").write_bytes(content)
    assert np.abs(read_image(tmp_path / "picture").permute(1, 2, 0).numpy() - expected).max() <= 1


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path):
    halves = np.zeros((16, 32, 3), dtype=np.uint8)
    halves[:, :16], halves[:, 16:] = (255, 0, 0), (0, 0, 255)
    (tmp_path / "picture").write_bytes(encoded(halves, "JPEG", "CMYK", quality=95))
    read = read_image(tmp_path / "picture").permute(1, 2, 0).numpy().astype(int)
    assert np.abs(read - halves)[:, [4, 27]].max() < 8


@pytest.mark.parametrize(("values", "hot"), [(RAMP * 16, 2**16 - 1), (grey(RAMP * 128), 2**16 - 1)], ids=["16", "48"])
def test_one_hot_pixel_makes_a_picture_of_fewer_bits_darker(tmp_path, values, hot):
    """A limit that the docstring names."""
    values = values.copy()
    values[0, 0] = hot
    (tmp_path / "picture").write_bytes(deep_png(values, colour_type=2 if values.ndim == 3 else 0))
    expected = values // 256 if values.ndim == 3 else values * 255 // hot
    assert np.abs(read_image(tmp_path / "picture")[0].numpy() - expected.reshape(4, 256, -1)[..., 0]).max() <= 1


@pytest.mark.parametrize("upright", [False, True])
def test_a_picture_of_16_bits_is_turned_upright_where_that_is_asked_for(tmp_path, upright):
    Image.fromarray((RAMP * 257).astype(np.uint16)).save(tmp_path / "picture.png", exif=UPRIGHT)
    path = tmp_path / "picture.png"
    read = read_with(path, lambda image: as_rgb(image, path, upright=upright))
    assert read.shape == ((3, 256, 4) if upright else (3, 4, 256))


AVIF = encoded(COLOUR_RAMP.astype(np.uint8), "AVIF")
NO_PICTURES = {
    "12 bits in 48": (deep_png(COLOUR_RAMP * 4095 // 255), "colours of 16 bits and uses fewer"),
    "8 bits in 48": (deep_png(COLOUR_RAMP), "colours of 16 bits and uses fewer"),
    "8 bits in 48, TIFF": (deep_tiff(COLOUR_RAMP), "colours of 16 bits and uses fewer"),
    "fractions": (encoded((RAMP / 255).astype(np.float32), "TIFF"), "holds fractions"),
    "negative numbers": (encoded((RAMP - 9).astype(np.int32), "TIFF"), "holds negative numbers"),
    "16 bits of which 0 is white": (
        encoded((RAMP * 257).astype(np.uint16), "TIFF", tiffinfo={262: 0}),
        "16 bits of which 0 is white",
    ),
    "a damaged second page": (deep_tiff(COLOUR_RAMP)[:-4] + struct.pack("<I", 14), "cannot be read"),
    "a damaged AVIF": (AVIF[:-150] + b"U" * 150, "cannot be read"),
    "a palette that is missing": (png(2, 2, 8, 3, zlib.compress(b"\0\0\1\0\1\0")), "cannot be read"),
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_what_would_be_read_wrong_is_refused(tmp_path, kind):
    content, message = NO_PICTURES[kind]
    (tmp_path / "picture").write_bytes(content)
    with pytest.raises(DataError, match=rf"picture.*{message}"):
        read_image(tmp_path / "picture")


# Label maps

NUMBERS = np.zeros((20, 24), dtype=np.uint8)
NUMBERS[2:14, 2:20] = 255
NUMBERS[3:13, 3:19] = 13
SORTED = np.array([0, 13, 255])
PACKED = np.searchsorted(SORTED, NUMBERS)
VOC = voc_palette()


def with_palette(indices: np.ndarray, colours: np.ndarray, kind: str = "PNG", **options) -> bytes:
    image, file = Image.fromarray(indices.astype(np.uint8)), io.BytesIO()
    image.putpalette(np.asarray(colours, dtype=np.uint8).tobytes())
    image.save(file, kind, **options)
    return file.getvalue()


OPAQUE = np.dstack([VOC[NUMBERS], np.full_like(NUMBERS, 255)])
LABEL_MAPS = {
    "as published": with_palette(NUMBERS, VOC),
    "other colours at unused indices": with_palette(NUMBERS, np.where(np.isin(range(256), SORTED)[:, None], VOC, 1)),
    "grey": encoded(NUMBERS),
    "PGM": encoded(NUMBERS, "PPM"),
    "PGM in words": f"P2 24 20 255 {' '.join(map(str, NUMBERS.ravel()))}".encode(),
    "grey with a palette": with_palette(NUMBERS, grey(np.arange(256))),
    "void beyond the palette's end": with_palette(NUMBERS, VOC[:21]),
    "the palette sorted anew": with_palette(PACKED, VOC[SORTED]),
    "the palette from light to dark": with_palette(2 - PACKED, VOC[SORTED[::-1]]),
    "two indices of one colour": with_palette(PACKED + (np.indices(PACKED.shape)[0] > 7) * 3, VOC[[*SORTED, *SORTED]]),
    "sorted anew in GIF": with_palette(PACKED, VOC[SORTED], "GIF"),
    "sorted anew in TIFF": with_palette(PACKED, VOC[SORTED], "TIFF"),
    "sorted anew in BMP": with_palette(PACKED, VOC[SORTED], "BMP"),
    "RGB": encoded(VOC[NUMBERS]),
    "RGB in BMP": encoded(VOC[NUMBERS], "BMP"),
    "RGBA, opaque": encoded(OPAQUE),
    "lossless WebP": encoded(VOC[NUMBERS], "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", LABEL_MAPS)
def test_the_same_picture_to_every_viewer_gives_the_published_numbers(tmp_path, kind):
    (tmp_path / "labels").write_bytes(LABEL_MAPS[kind])
    assert np.array_equal(read_label_map(tmp_path / "labels").numpy(), NUMBERS)


CUT_OUT = np.where((NUMBERS == 13)[..., None], (192, 0, 128, 0), OPAQUE).astype(np.uint8)
OFF = VOC[NUMBERS] + (NUMBERS == 13)[..., None].astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
SECOND = {"save_all": True, "append_images": [Image.fromarray(NUMBERS[::-1])]}
NO_LABEL_MAPS = {
    "grey packed with a palette": (with_palette(PACKED, grey(SORTED)), "is the colour of nothing"),
    "grey of 4 bits": (deep_png(PACKED, 4, 0), "grey of fewer than 8 bits"),
    "grey of 2 bits": (deep_png(PACKED, 2, 0), "grey of fewer than 8 bits"),
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
}


@pytest.mark.parametrize("kind", NO_LABEL_MAPS)
def test_other_label_maps_are_refused(tmp_path, kind):
    content, message = NO_LABEL_MAPS[kind]
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(DataError, match=rf"labels .*{message}.*(restore the file|Restore|Save that)"):
        read_label_map(tmp_path / "labels")


def test_packed_grey_of_8_bits_cannot_be_told(tmp_path):
    """A limit that the docstring names: 0, 1 and 2 are VOC's numbers too."""
    (tmp_path / "labels").write_bytes(encoded(PACKED.astype(np.uint8)))
    assert np.array_equal(read_label_map(tmp_path / "labels").numpy(), PACKED)


def street_colours() -> np.ndarray:
    """A colour of each of Cityscapes' numbers, -1 for several."""
    colours = np.zeros((35, 3), dtype=np.uint8)
    for colour, numbers in PALETTES["cityscapes"].items():
        colours[list(numbers)] = colour
    return colours


STREETS = street_colours()


@pytest.mark.parametrize(
    ("numbers", "palette"),
    [
        (np.arange(35), STREETS),
        (np.arange(35), np.where(np.arange(35)[:, None] == 4, 0, STREETS)),
        ([0, 7, 8, 11, 13, 23, 33], None),
    ],
    ids=["GTA5", "static objects in black", "sorted anew"],
)
def test_streets_by_their_palette(tmp_path, numbers, palette):
    numbers = np.tile(numbers, (3, 1))
    order = np.unique(numbers)[::-1]
    indices = numbers if palette is not None else len(order) - 1 - np.searchsorted(order[::-1], numbers)
    path = tmp_path / "labels"
    path.write_bytes(with_palette(indices, STREETS[order] if palette is None else palette))
    read = to_train_ids(read_label_map(path, PALETTES["cityscapes"]), CITYSCAPES_TRAIN_IDS, 34, path)
    expected = np.vectorize(lambda number: CITYSCAPES_TRAIN_IDS.get(number, 255))(numbers)
    assert np.array_equal(read.numpy(), expected)


def test_train_ids_in_place_of_street_numbers_are_told_by_colours_or_void(tmp_path):
    ids = np.tile([0, 1, 2, 8, 10, 11], (2, 1))
    colours = np.array([STREETS[number] for number in CITYSCAPES_TRAIN_IDS])
    path = tmp_path / "labels"

    def read(content: bytes) -> list[list[int]]:
        path.write_bytes(content)
        return to_train_ids(read_label_map(path, PALETTES["cityscapes"]), CITYSCAPES_TRAIN_IDS, 34, path).tolist()

    assert read(with_palette(ids, colours)) == ids.tolist()
    assert read(encoded(ids.astype(np.uint8))) == [[255, 255, 255, 1, 255, 2]] * 2, "a limit that GTA5's reader names"
    with pytest.raises(DataError, match=r"holds the values \[255\]"):
        read(encoded(np.where(ids == 1, 255, ids).astype(np.uint8)))


@pytest.mark.parametrize(("number", "both"), [(17, "17 and 18"), (26, "26 and 34")])
def test_a_colour_of_two_street_classes_is_no_number(tmp_path, number, both):
    (tmp_path / "labels").write_bytes(with_palette(np.ones((3, 3)), STREETS[[7, number]]))
    with pytest.raises(DataError, match=f"is the colour of {both}"):
        read_label_map(tmp_path / "labels", PALETTES["cityscapes"])


def test_train_ids_have_their_classes_colours(tmp_path):
    shown = np.tile([*range(19), 255], (2, 1))
    colours = np.zeros((256, 3))
    for number, train_id in CITYSCAPES_TRAIN_IDS.items():
        colours[train_id] = STREETS[number]
    for indices, palette in ((shown, colours), (np.tile(np.arange(20), (2, 1)), colours[[*range(19), 255]])):
        (tmp_path / "labels").write_bytes(with_palette(indices, palette))
        assert np.array_equal(read_label_map(tmp_path / "labels", TRAIN_ID_COLOURS).numpy(), shown)


@pytest.mark.parametrize("pavement", [(0, 0, 192), (60, 40, 222)])
def test_camvid_in_its_colours(tmp_path, pavement):
    numbers, colours = np.tile(np.arange(12), (2, 1)), CAMVID_COLOURS.copy()
    colours[4] = pavement
    for content in (encoded(colours[numbers]), with_palette(11 - numbers, colours[::-1])):
        (tmp_path / "labels").write_bytes(content)
        assert np.array_equal(read_label_map(tmp_path / "labels", PALETTES["camvid"]).numpy(), numbers)


# Maps of eight colours, and masks

CODES = np.tile(np.arange(8, dtype=np.uint8), (3, 1))
EIGHT = ((CODES[..., None] >> np.array([2, 1, 0]) & 1) * 255).astype(np.uint8)
GREY_OF_COLOURS = np.asarray(Image.fromarray(EIGHT).convert("L"))
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


@pytest.mark.parametrize(
    "content",
    [
        encoded(EIGHT),
        encoded(EIGHT, mode="P"),
        encoded(np.dstack([EIGHT, CODES * 0 + 255])),
        deep_png(EIGHT * np.uint16(257)),
    ],
    ids=["RGB", "palette", "opaque", "48 bits"],
)
def test_eight_colours_are_told_apart(tmp_path, content):
    (tmp_path / "mask").write_bytes(content)
    assert np.array_equal(colour_codes(tmp_path / "mask").numpy(), CODES)


def test_eight_colours_of_which_black_and_white_are_used(tmp_path):
    for mode in ("1", "L"):
        (tmp_path / "mask").write_bytes(encoded(EIGHT[:, [0, 7]], mode=mode))
        assert colour_codes(tmp_path / "mask").unique().tolist() == [0, 7]


@pytest.mark.parametrize("kind", NO_COLOURS)
def test_other_maps_of_colours_are_refused(tmp_path, kind):
    content, message = NO_COLOURS[kind]
    (tmp_path / "mask").write_bytes(content)
    with pytest.raises(DataError, match=message):
        colour_codes(tmp_path / "mask")


BRIGHT = np.repeat(RAMP, 4, axis=0) >= 128
SOFT = np.where(np.arange(16)[:, None] == 8, np.arange(256), BRIGHT * 255)
MASKS = {
    "soft, 8 bits": encoded(SOFT.astype(np.uint8)),
    "soft, 12 bits in 16": encoded((-(-SOFT * 4095 // 255)).astype(np.uint16)),
    "soft, 16 bits": encoded((SOFT * 257).astype(np.uint16)),
    "soft, 8 bits in 16": encoded(SOFT.astype(np.uint16)),
    "soft, 48 bits": deep_png(grey(SOFT * 257)),
    "grey of 128": encoded(BRIGHT * np.uint8(128)),
    "dots of grey": encoded(np.where(BRIGHT, 255, (np.indices(BRIGHT.shape) % 4 == 0).all(0) * 99).astype(np.uint8)),
    "JPEG": encoded(BRIGHT * np.uint8(255), "JPEG", quality=30),
    "1 bit": encoded(BRIGHT.astype(np.uint8) * 255, mode="1"),
    "black cut out": encoded(np.dstack([grey(BRIGHT * 255), BRIGHT * 255]).astype(np.uint8)),
}
TWO = np.tile(np.arange(64) // 16 % 3, (20, 1))
INK = np.where(BRIGHT[..., None], 0, 255)
NO_MASKS = {
    "white cut out": (np.dstack([grey(BRIGHT | 1) * 255, BRIGHT * 255]).astype(np.uint8), None, "transparent"),
    "black ink on nothing": (np.dstack([grey(BRIGHT * 0), BRIGHT * 255]).astype(np.uint8), None, "transparent"),
    "VOC's palette": ((RAMP > 250) * 15 + ((RAMP > 248) & (RAMP < 251)) * 255, VOC, "palette"),
    "fractions": ((RAMP / 255).astype(np.float32), None, "fractions"),
    "a photograph in grey": (NOISE[..., 0], None, "picture in greys"),
    "the image beside black": (np.where(BRIGHT, RAMP[0], 0).astype(np.uint8), None, "picture in greys"),
    "grey of 100 beside white": (np.choose(TWO, (0, 255, 100)).astype(np.uint8), None, "a tone of 100 "),
    "red beside white": (np.choose(TWO[..., None], (0, 255, (255, 0, 0))).astype(np.uint8), None, "a tone of 76 "),
    "a number beside white": (np.choose(TWO, (0, 255, 7)).astype(np.uint8), None, "a tone of 7 "),
    "255 beside 65535": (np.choose(TWO, (0, 65535, 255)).astype(np.uint16), None, "a tone of 1 "),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_depth_are_parted_at_half_of_white(tmp_path, kind):
    (tmp_path / "mask").write_bytes(MASKS[kind])
    assert np.array_equal(read_mask(tmp_path / "mask").numpy(), BRIGHT)


@pytest.mark.parametrize("kind", NO_MASKS)
def test_masks_that_would_be_read_wrong_are_refused(tmp_path, kind):
    pixels, palette, message = NO_MASKS[kind]
    container = "TIFF" if pixels.dtype == np.float32 else "PNG"
    content = encoded(pixels, container) if palette is None else with_palette(pixels, palette)
    (tmp_path / "mask").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_mask(tmp_path / "mask")


# What is wrong with single files


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
