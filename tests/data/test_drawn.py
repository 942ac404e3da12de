"""Masks of every kind, each with what its drawer meant, and those that are none. About 10 s."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFilter
from pycocotools import mask as coco_mask

from fsslib.data.drawn import read_drawn_mask
from fsslib.data.images import DataError, voc_palette

HEIGHT, WIDTH = 120, 160
Y, X = np.mgrid[:HEIGHT, :WIDTH]
LEFT, RIGHT = ((X - x) ** 2 + (Y - 60) ** 2 <= 30**2 for x in (45, 115))
BOTH = LEFT | RIGHT
RIM = ((X - 45) ** 2 + (Y - 60) ** 2 <= 34**2) & ~LEFT
VOC = np.where(RIM, 255, LEFT * 15)
LABELS = np.where(RIM, 255, LEFT * 1)
LARGE = (X >= 12) & (X < 148) & (Y >= 8) & (Y < 112)
CORNER = (X < 8) & (Y < 8)
NET = (X % 4 == 0) | (Y % 4 == 0)
DOT = (X - 115) ** 2 + (Y - 60) ** 2 < 4**2
BOX = (X >= 20) & (X < 100) & (Y >= 30) & (Y < 90)


def picture(height=HEIGHT, width=WIDTH) -> Image.Image:
    """Something like a photograph: shades, an edge and noise."""
    y, x = np.mgrid[:height, :width]
    values = np.stack([90 + 60 * np.sin(x / 17), 120 + 70 * (y > x / 2), 60 + y / 2], -1)
    return Image.fromarray((values + np.random.default_rng(0).normal(0, 9, values.shape)).clip(0, 255).astype(np.uint8))


def grey(values, dtype=np.uint8) -> Image.Image:
    return Image.fromarray(np.asarray(values).astype(dtype))


def paletted(values, colours) -> Image.Image:
    image = grey(values)
    image.putpalette(np.asarray(colours, np.uint8).ravel().tolist())
    return image


def coloured(values, colours) -> Image.Image:
    return Image.fromarray(np.asarray(colours, np.uint8)[np.asarray(values, int)])


def rgba(colours, alpha) -> Image.Image:
    return Image.fromarray(np.dstack([colours, np.asarray(alpha)]).astype(np.uint8))


def image(drawn, suffix="png", **options):
    """A writer of one mask file."""

    def write(folder):
        drawn.save(folder / f"m.{suffix}", **options)
        return folder / f"m.{suffix}"

    return write


def via(drawn, suffix, **options):
    """A writer of a PNG of what an earlier file of a lossy kind left of a mask."""

    def write(folder):
        drawn.save(folder / f"before.{suffix}", **options)
        with Image.open(folder / f"before.{suffix}") as before:
            before.save(folder / "m.png")
        return folder / "m.png"

    return write


def array(values):
    def write(folder):
        np.save(folder / "m.npy", values)
        return folder / "m.npy"

    return write


def deep_png(values):
    """A writer of a PNG of 16 bits a channel in three channels, which Pillow reads and does not write."""

    def write(folder):
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.repeat(values[..., None], 3, -1))
        parts = [(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
        chunks = [
            struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
            for k, d in [*parts, (b"IEND", b"")]
        ]
        (folder / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
        return folder / "m.png"

    return write


def outlines(content):
    def write(folder):
        (folder / "m.json").write_text(json.dumps(content))
        return folder / "m.json"

    return write


def shape(label, points, kind="polygon"):
    return {"label": label, "points": points, **({"shape_type": kind} if kind else {})}


CORNERS = [[20, 30], [100, 30], [100, 90], [20, 90]]
ALL = [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]
HOLE, SMALL = ([[40, 50], [x, 50], [x, y], [40, y]] for x, y in ((60, 70), (50, 60)))
LABELME = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
RUNS = coco_mask.encode(np.asfortranarray(RIGHT.astype(np.uint8)))
COUNTS = np.diff(np.flatnonzero(np.diff(np.r_[2, RIGHT.T.ravel(), 2]))).tolist()


def coco(*entries, name="a.png", more=()):
    images = [{"id": 7, "file_name": name, "height": float(HEIGHT), "width": WIDTH}, *more]
    entries = [{"id": n, "image_id": 7, "category_id": 0, "iscrowd": 0, **entry} for n, entry in enumerate(entries)]
    return outlines(
        {"images": images, "annotations": entries, "categories": [{"id": 0, "name": "mug"}, {"id": 3, "name": "pen"}]}
    )


POLYGON = {"segmentation": [[value for corner in CORNERS for value in corner]]}
COMPRESSED = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": RUNS["counts"].decode()}, "category_id": 3}
LISTED = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": COUNTS}}
TWO = LEFT + 2 * RIGHT
PAINT = [(0, 0, 0), (200, 40, 60), (30, 60, 90)]
JOINED = "holds 2 objects or classes, which count as one"
SOFT = grey(BOTH * 255).filter(ImageFilter.GaussianBlur(3))
RED = [(255,) * 3, (255, 0, 0), (0, 0, 255)]
SORTED = [(0, 0, 0), (224, 224, 192), (192, 128, 128)]

UNDERSTOOD = {
    # label maps: every object, and a remark that they were joined
    "two numbers": (image(grey(TWO)), BOTH, JOINED),
    "two numbers, one almost black": (image(grey(LEFT + 200 * RIGHT)), BOTH, JOINED),
    "two numbers of 16 bits": (image(grey(LEFT * 3 + RIGHT * 900, np.uint16), "tif"), BOTH, JOINED),
    "two numbers of 32 bits": (image(grey(LEFT * 3 + RIGHT * 70000, np.int32), "tif"), BOTH, JOINED),
    "two fractions": (image(grey(LEFT * 1 + RIGHT * 7.5, np.float32), "tif"), BOTH, JOINED),
    "two colours": (image(coloured(TWO, PAINT)), BOTH, f"{JOINED}: #1e3c5a, #c8283c"),
    "two colours in a palette of 4 bits": (image(paletted(TWO, PAINT), bits=4), BOTH, JOINED),
    "one colour in a palette of 1 bit": (image(paletted(LEFT, PAINT[:2]), bits=1), LEFT, None),
    "two colours in lossless WebP": (image(coloured(TWO, PAINT), "webp", lossless=True), BOTH, JOINED),
    "two greys, both bright": (image(grey(LEFT * 128 + RIGHT * 255)), BOTH, JOINED),
    "two greys of 48 bits": (deep_png(LEFT * 30000 + RIGHT * 60000), BOTH, JOINED),
    "a bitmap": (image(grey(TWO), "bmp"), BOTH, JOINED),
    # void
    "VOC's palette": (image(paletted(VOC, voc_palette())), LABELS, "is void"),
    "VOC's palette, sorted anew": (image(paletted(LEFT * 2 + RIM * 1, SORTED)), LABELS, "is void"),
    "VOC's colours": (image(coloured(VOC, voc_palette())), LABELS, "is void"),
    "VOC's numbers in grey": (image(grey(VOC)), LABELS, "is void"),
    "1 and 255 in grey": (image(grey(LABELS)), LABELS, "is void"),
    "0 and 255 alone": (image(grey(LEFT * 255)), LEFT, None),
    "-1": (image(grey(np.where(RIM, -1, LEFT), np.int32), "tif"), LABELS, "is void"),
    "-1 in an array": (array(np.where(RIM, -1, LEFT * 4)), LABELS, "is void"),
    "-1 around the object": (image(grey(np.where(LEFT, 1, -1), np.int32), "tif"), LEFT, "has no 0"),
    "no number": (array(np.where(RIM, np.nan, LEFT * 0.5)), LABELS, "is void"),
    # arrays
    "an array of truth values": (array(LEFT), LEFT, None),
    "an array with an axis before": (array(TWO[None]), BOTH, JOINED),
    "an array with an axis behind": (array(LEFT[..., None] * 1.0), LEFT, None),
    "an array of shares": (array(np.asarray(SOFT) / 255), BOTH, None),
    # lossy once: half as bright as the brightest
    "JPEG": (image(grey(BOTH * 255), "jpg", quality=75), BOTH, None),
    "JPEG, poor": (image(grey(BOTH * 255), "jpg", quality=30), BOTH, None),
    "PNG of a JPEG": (via(grey(BOTH * 255), "jpg", quality=60), BOTH, None),
    "PNG of the best JPEG": (via(grey(BOTH * 255), "jpg", quality=100), BOTH, None),
    "PNG of a WebP": (via(grey(BOTH * 255), "webp", quality=40), BOTH, None),
    "PNG of a JPEG in colours": (via(coloured(BOTH, PAINT), "jpg", quality=80), BOTH, None),
    "a soft brush": (image(SOFT), BOTH, None),
    "video's grey": (image(grey(16 + BOTH * 219), "jpg"), BOTH, None),
    "scaled down": (
        image(grey(np.kron(BOTH, np.ones((3, 3))) * 255).resize((WIDTH, HEIGHT), Image.BICUBIC)),
        BOTH,
        None,
    ),
    "a small dark object in a JPEG": (image(grey(LEFT * 255 + DOT * 40), "jpg", quality=90), LEFT, "has 1 spot(s)"),
    "a small dark object, blurred": (
        image(grey(LEFT * 255 + DOT * 120).filter(ImageFilter.GaussianBlur(1))),
        LEFT,
        "has 1 spot(s)",
    ),
    "a net of fine lines": (image(grey(NET * 255)), NET, "made of dots or fine lines"),
    "hatching": (image(grey(((X + Y) % 3 == 0) * 1)), (X + Y) % 3 == 0, "made of dots or fine lines"),
    "fine lines in a colour": (image(coloured(NET, PAINT)), NET, "made of dots or fine lines"),
    # transparency
    "a transparent margin": (image(rgba(coloured(LEFT * 1, [(0,) * 3, (255,) * 3]), BOX * 255)), LEFT & BOX, "margin"),
    "a colour on black in a transparent margin": (
        image(rgba(coloured(LEFT * 1, PAINT), BOX * 255)),
        LEFT & BOX,
        "margin",
    ),
    "colour where it is transparent": (image(rgba(np.full((HEIGHT, WIDTH, 3), 255), LEFT * 255)), LEFT, None),
    "a layer of 40 %": (image(rgba(np.full((HEIGHT, WIDTH, 3), (255, 0, 0)), LEFT * 102)), LEFT, None),
    "a black layer of 40 %": (image(rgba(np.zeros((HEIGHT, WIDTH, 3)), LEFT * 102)), LEFT, None),
    "a large object on black with transparent corners": (
        image(rgba(coloured(LARGE, PAINT), 255 - CORNER * 255)),
        LARGE,
        "margin",
    ),
    "all transparent": (image(rgba(coloured(LEFT * 1, PAINT), 0 * LEFT)), LEFT, None),
    "a transparent entry of a palette": (image(paletted(LEFT, PAINT[::-1]), transparency=0), LEFT, None),
    # no black
    "two tones": (image(grey(60 + LEFT * 140)), LEFT, "two tones and no black"),
    "inverted": (image(grey(255 - LEFT * 255)), ~LEFT, "invert the mask"),
    # outlines
    "LabelMe's polygon": (outlines({**LABELME, "shapes": [shape("mug", CORNERS)]}), BOX, None),
    "LabelMe's, as of old": (outlines({"shapes": [shape("mug", CORNERS, None)]}), BOX, None),
    "LabelMe's rectangle": (
        outlines({**LABELME, "shapes": [shape("mug", [[100, 90], [20, 30]], "rectangle")]}),
        BOX,
        None,
    ),
    "LabelMe's circle": (
        outlines({**LABELME, "shapes": [shape("a", [[45.5, 60.5], [76, 60.5]], "circle"), shape("b", CORNERS)]}),
        BOX | LEFT,
        f"{JOINED}: a, b",
    ),
    "COCO's polygon of class 0, in folders": (coco(POLYGON, name="train/set 1/a.png"), BOX, None),
    "COCO's runs as text": (coco(COMPRESSED), RIGHT, None),
    "COCO's runs as a list": (coco(LISTED), RIGHT, None),
    "COCO's crowd": (coco(POLYGON, LISTED | {"iscrowd": 1}), np.where(RIGHT, 255, BOX), "is void"),
    "COCO's two classes": (coco(POLYGON, COMPRESSED), BOX | RIGHT, f"{JOINED}: mug, pen"),
    "COCO's ids as text": (coco(POLYGON | {"image_id": "7", "category_id": "0", "iscrowd": "0"}), BOX, None),
    "COCO's object without outline": (coco(POLYGON, {"segmentation": []}), BOX, "has 1 without outline in a.png"),
    "COCO's name in capitals": (coco(POLYGON, name="A.PNG"), BOX, None),
    "LabelMe's background": (
        outlines({**LABELME, "shapes": [shape("_background_", ALL), shape("mug", CORNERS), shape("mug ", CORNERS)]}),
        BOX,
        None,
    ),
    "LabelMe's hole and void": (
        outlines({"shapes": [shape("mug", CORNERS), shape("__ignore__", HOLE), shape("background", SMALL)]}),
        np.where((X >= 40) & (X < 60) & (Y >= 50) & (Y < 70), np.where((X < 50) & (Y < 60), 0, 255), BOX),
        "is void",
    ),
    "COCO's empty image": (coco(), 0 * BOX, "is empty"),
}


@pytest.mark.parametrize("kind", UNDERSTOOD)
def test_a_mask_is_what_was_meant(tmp_path, kind):
    write, labels, remark = UNDERSTOOD[kind]
    picture().save(tmp_path / "a.png")
    mask = read_drawn_mask(write(tmp_path), tmp_path / "a.png")
    wrong = (mask.labels.numpy() != labels).mean()
    soft = "half as bright" in mask.rule or kind == "LabelMe's circle"
    assert wrong <= 0.004 if soft else wrong == 0
    assert mask.share == pytest.approx((labels == 1).mean(), abs=0.003)
    assert [remark in said for said in mask.remarks] == [True] if remark else mask.remarks == ()


def beside(content):
    """A writer of the picture, and of a file made from it that is given as its mask."""

    def write(folder):
        with Image.open(folder / "a.png") as read:
            return content(read, folder)

    return write


def pages(folder):
    grey(LEFT * 255).save(folder / "m.tif", save_all=True, append_images=[grey(RIGHT * 255)])
    return folder / "m.tif"


def wrong_pointer(folder):
    raw = image(grey(LEFT * 255), "tif")(folder).read_bytes()
    start = int.from_bytes(raw[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(raw[start : start + 2], "little")
    (folder / "m.tif").write_bytes(raw[:end] + (100).to_bytes(4, "little") + raw[end + 4 :])
    return folder / "m.tif"


def zipped(folder):
    np.savez(folder / "m.npz", LEFT)
    return (folder / "m.npz").rename(folder / "m.npy")


def photo_as_jpeg(read, folder):
    picture().rotate(180).save(folder / "m.jpg", quality=90)
    return folder / "m.jpg"


NOISE = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)

REFUSED = {
    "the picture's own file": (beside(lambda read, folder: folder / "a.png"), "holds the same pixels"),
    "the picture in another file": (beside(lambda read, folder: image(read, "bmp")(folder)), "holds the same pixels"),
    "a photograph": (beside(photo_as_jpeg), "looks like a photograph.* Name first the picture"),
    "a photograph in few colours": (image(picture().rotate(180).quantize(16)), "looks like a photograph"),
    "a photograph of 16 bits": (image(grey(NOISE * 200.0, np.uint16), "tif"), "looks like a photograph"),
    "a bright thing in the dark": (image(grey(BOTH * 200 + NOISE / 12)), "looks like a photograph"),
    "noise": (image(grey(NOISE)), "looks like a photograph"),
    "numbers in a JPEG": (image(grey(TWO), "jpg"), "numbers do not outlive a JPEG"),
    "a label map in a JPEG": (via(grey(LEFT * 90 + RIGHT * 250), "jpg", quality=80), "several tones with blurred"),
    "a label map made smaller": (image(grey(TWO * 120).resize((99, 99)).resize((WIDTH, HEIGHT))), "several tones"),
    "VOC's numbers in a JPEG": (image(grey(VOC), "jpg", quality=95), "several tones"),
    "VOC's numbers in a lossy WebP": (image(grey(VOC), "webp"), "several tones"),
    "VOC's numbers, blurred": (image(grey(VOC).filter(ImageFilter.GaussianBlur(0.7))), "several tones"),
    "VOC's numbers, rotated": (image(grey(VOC).rotate(1, Image.BICUBIC)), "several tones"),
    "a dark object in a JPEG": (image(grey(LEFT * 255 + RIGHT * 10), "jpg", quality=75), "several tones"),
    "numbers of 48 bits": (deep_png(LEFT * 1), "colours of 16 bits and uses fewer"),
    "two layers": (image(rgba(coloured(LEFT, PAINT), LEFT * 255 + RIGHT * 102)), "several opacities"),
    "a TIFF with a wrong pointer": (wrong_pointer, "cannot be read.* damaged"),
    "a number above 2 ** 31": (image(grey(LEFT * -1294967296, np.int32), "tif"), "numbers above 2147483647"),
    "arrays in a zip": (zipped, "cannot be read.* np.save"),
    "JSON of many brackets": (
        lambda folder: (folder / "m.json").write_text("[" * 100_000) and folder / "m.json",
        "cannot be read as JSON",
    ),
    "two colours as bright": (image(coloured(LEFT, RED)), "has no black.*#ff0000, #ffffff"),
    "one pixel more": (image(grey(np.pad(LEFT, ((0, 0), (0, 1))) * 255)), "is 161 x 120 pixels, its picture"),
    "one pixel less": (array(LEFT[1:]), "is 160 x 119 pixels"),
    "several pages": (pages, "holds 2 pages"),
    "colours without black": (image(coloured(TWO, [(255, 255, 255), *PAINT[1:]])), "has no black.*#c8283c"),
    "scores of a network": (array(np.asarray(SOFT) / 50 - 3), "negative numbers"),
    "a stack of arrays": (array(np.stack([LEFT, RIGHT])), r"holds bool \[2, 120, 160\]"),
    "pickled objects": (array(np.array([{}])), "cannot be read"),
    "no array": (lambda folder: (folder / "m.npy").write_text("x") and folder / "m.npy", "cannot be read"),
    "no JSON": (lambda folder: (folder / "m.json").write_text("{") and folder / "m.json", "cannot be read as JSON"),
    "another JSON": (outlines({"regions": []}), "neither LabelMe's nor COCO's"),
    "a list": (outlines([1]), "neither LabelMe's nor COCO's"),
    "LabelMe's line": (outlines({**LABELME, "shapes": [shape("mug", CORNERS, "linestrip")]}), "'mug' is a linestrip"),
    "LabelMe's point": (outlines({**LABELME, "shapes": [shape("mug", CORNERS[:1], "point")]}), "'mug' is a point"),
    "LabelMe's, of a larger picture": (
        outlines({"imageHeight": 240, "imageWidth": 320, "shapes": [shape("mug", CORNERS)]}),
        "is 320 x 240 pixels",
    ),
    "COCO's, of other pictures": (coco(POLYGON, name="b.png"), "lists a.png not.* b.png"),
    "COCO's, listed twice": (
        coco(POLYGON, name="y/a.png", more=[{"id": 8, "file_name": "x/a.png"}]),
        "lists a.png not",
    ),
    "COCO's box": (coco({"bbox": [20, 30, 80, 60]}), "an outline of a.png cannot be filled.*no outline"),
    "COCO's runs of another size": (coco({"segmentation": {"size": [9, 9], "counts": [81]}}), "cannot be filled"),
    "a folder": (lambda folder: folder / "none", "does not exist"),
    "an empty folder": (lambda folder: (folder / "none").mkdir() or folder / "none", "is a folder without masks"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_mask_is_said_in_words(tmp_path, kind):
    write, said = REFUSED[kind]
    picture().save(tmp_path / "a.png")
    path = write(tmp_path)
    with pytest.raises(DataError, match=f"(?s){said}"):
        read_drawn_mask(path, tmp_path / "a.png")


CHOSEN = {
    "a number": (image(grey(TWO)), 2, RIGHT),
    "a number of a palette": (image(paletted(TWO, PAINT)), "1", LEFT),
    "a colour": (image(coloured(TWO, PAINT)), "#C8283C", LEFT),
    "black in an inverted mask": (image(grey(255 - LEFT * 255)), "#000000", LEFT),
    "0 in an inverted mask": (image(grey(255 - LEFT * 255)), "0", LEFT),
    "black on a transparent layer": (image(rgba(coloured(LEFT, [(0,) * 3, (255, 0, 0)]), BOTH * 255)), "#000", RIGHT),
    "a short colour": (image(coloured(TWO, RED)), "#f00", LEFT),
    "a colour without its sign": (image(coloured(TWO, RED)), "FF0000", LEFT),
    "a colour's name": (image(coloured(TWO, RED)), "red", LEFT),
    "a grey": (image(grey(LEFT * 128 + RIGHT * 255)), "#808080", LEFT),
    "a colour on a transparent layer": (image(rgba(coloured(TWO, PAINT), BOTH * 255)), "#1e3c5a", RIGHT),
    "a colour where there is no black": (image(coloured(TWO, [(255,) * 3, *PAINT[1:]])), "#1e3c5a", RIGHT),
    "VOC's name": (image(coloured(VOC + RIGHT * 12, voc_palette())), "person", LABELS),
    "VOC's number, sorted anew": (image(paletted(LEFT * 2 + RIM * 1, SORTED)), 15, LABELS),
    "a name in LabelMe's": (
        outlines({"shapes": [shape("Mug", CORNERS), shape("b", [[0, 0], [9, 0], [9, 9]])]}),
        "mug",
        BOX,
    ),
    "a name in COCO's": (coco(POLYGON, COMPRESSED), "pen", RIGHT),
}


@pytest.mark.parametrize("kind", CHOSEN)
def test_one_class_of_a_mask_is_chosen(tmp_path, kind):
    write, choose, labels = CHOSEN[kind]
    picture().save(tmp_path / "a.png")
    mask = read_drawn_mask(write(tmp_path), tmp_path / "a.png", choose)
    assert np.array_equal(mask.labels.numpy(), labels)
    assert mask.rule == f"what is {choose}"
    assert not any("count as one" in remark for remark in mask.remarks)


def test_a_class_that_a_mask_has_not_is_named_with_those_it_has(tmp_path):
    picture().save(tmp_path / "a.png")
    mask = read_drawn_mask(coco(POLYGON, COMPRESSED)(tmp_path), tmp_path / "a.png", "cup")
    assert mask.share == 0
    assert mask.remarks[0] == "m.json has no 'cup'; it has mug, pen."
    with pytest.raises(DataError, match="no classes to choose from"):
        read_drawn_mask(image(SOFT)(tmp_path), tmp_path / "a.png", "#ffffff")


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (3, 3)])
def test_the_smallest_masks(tmp_path, size):
    drawn = np.arange(np.prod(size)).reshape(size) % 2 == 0
    picture(*size).save(tmp_path / "a.png")
    assert np.array_equal(read_drawn_mask(image(grey(drawn * 255))(tmp_path), tmp_path / "a.png").labels, drawn)


def test_crowds_alone_are_void_and_named(tmp_path):
    picture().save(tmp_path / "a.png")
    mask = read_drawn_mask(coco(LISTED | {"iscrowd": 1})(tmp_path), tmp_path / "a.png")
    assert np.array_equal(mask.labels.numpy(), RIGHT * 255)
    assert "marks all of a.png as crowds" in mask.remarks[0]
    assert "set iscrowd to 0" in mask.remarks[0]


@pytest.mark.parametrize("kind", ["16 bits", "8 bits", "fractions", "colours"])
@pytest.mark.parametrize("scale", [0.25, 1, 3])
def test_every_cell_of_a_segmenter_is_kept_at_every_size(tmp_path, kind, scale):
    height, width = round(300 * scale), round(400 * scale)
    y, x = np.mgrid[:height, :width]
    ids = np.zeros((height, width), np.uint16)
    for n, (row, column) in enumerate(((r, c) for r in range(25, 280, 36) for c in range(25, 380, 44)), start=1):
        ids[(x - column * scale) ** 2 + (y - row * scale) ** 2 <= (10 * scale) ** 2] = n
    colours = np.vstack([[0, 0, 0], np.random.default_rng(0).integers(30, 256, (ids.max(), 3))])
    drawn = {"16 bits": grey(ids, np.uint16), "8 bits": grey(ids), "fractions": grey(ids, np.float32)}
    path = image(drawn.get(kind) or coloured(ids, colours), "tif")(tmp_path)
    picture(height, width).save(tmp_path / "a.png")
    mask = read_drawn_mask(path, tmp_path / "a.png")
    assert np.array_equal(mask.labels.numpy(), ids > 0)
    assert "holds 72 objects or classes" in mask.remarks[0]


@pytest.mark.parametrize("scale", [0.4, 1, 4])
@pytest.mark.parametrize(("suffix", "options"), [("jpg", {"quality": 75}), ("jpg", {"quality": 95}), ("webp", {})])
def test_a_mask_that_was_lossy_once_is_halved_at_every_size(tmp_path, scale, suffix, options):
    size = round(WIDTH * scale), round(HEIGHT * scale)
    drawn = np.asarray(grey(BOTH * 255).resize(size, Image.NEAREST)) > 0
    path = via(grey(drawn * 255), suffix, **options)(tmp_path)
    picture(*size[::-1]).save(tmp_path / "a.jpg")
    mask = read_drawn_mask(path, tmp_path / "a.jpg")
    assert (mask.labels.numpy() != drawn).mean() < 0.002


def test_several_masks_of_one_picture_are_joined(tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / "masks").mkdir()
    image(grey(LEFT * 255))(tmp_path).rename(tmp_path / "masks" / "1.png")
    image(paletted(np.where(BOX & ~LEFT, 255, RIGHT * 15), voc_palette()))(tmp_path).rename(
        tmp_path / "masks" / "2.png"
    )
    (tmp_path / "masks" / ".hidden.png").write_bytes(b"")
    mask = read_drawn_mask(tmp_path / "masks", tmp_path / "a.png")
    assert np.array_equal(mask.labels.numpy(), np.where(BOTH & ~(BOX & RIGHT), 1, np.where(BOX, 255, 0)))
    assert mask.remarks[0] == "2 masks of a.png are joined: 1.png, 2.png."
    assert "is void" in mask.remarks[1]
    again = read_drawn_mask([tmp_path / "masks" / f"{n}.png" for n in (2, 1)], tmp_path / "a.png")
    assert np.array_equal(again.labels.numpy(), mask.labels.numpy())


@pytest.mark.parametrize(("bits", "numbers"), [(4, (1, 15)), (2, (1, 3))])
def test_grey_of_few_bits_keeps_its_numbers(tmp_path, bits, numbers):
    """Pillow 13.0.0 stretches them to 0 .. 255, where 15 of 4 bits would be void."""
    values = np.zeros((8, 16), dtype=np.uint8)
    values[1:4, 1:7], values[4:7, 8:15] = numbers
    digits = np.unpackbits(values[..., None], axis=2)[..., 8 - bits :].reshape(8, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in np.packbits(digits, axis=1))
    parts = {b"IHDR": struct.pack(">IIBBBBB", 16, 8, bits, 0, 0, 0, 0), b"IDAT": zlib.compress(lines), b"IEND": b""}
    chunks = (struct.pack(">I", len(b)) + a + b + struct.pack(">I", zlib.crc32(a + b)) for a, b in parts.items())
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    Image.new("RGB", (16, 8)).save(tmp_path / "a.png")
    for choice in numbers:
        mask = read_drawn_mask(tmp_path / "mask.png", tmp_path / "a.png", str(choice))
        assert np.array_equal(mask.labels.numpy(), values == choice)


def test_deep_tiff_with_white_at_zero_is_refused(tmp_path):
    Image.new("RGB", (16, 8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((8, 16), 65535, dtype=np.uint16)).save(tmp_path / "mask.tif", tiffinfo={262: 0})
    with pytest.raises(DataError, match="16 bits of which 0 is white"):
        read_drawn_mask(tmp_path / "mask.tif", tmp_path / "a.png")
