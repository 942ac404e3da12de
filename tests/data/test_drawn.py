"""Masks of every kind, each with what its drawer meant, and those that are none. About 10 s."""

import json

import numpy as np
import pytest
from PIL import Image, ImageFilter
from pycocotools import mask as coco_mask

from fsslib.data.decode import DataError, voc_palette
from fsslib.data.drawn import read_drawn_mask, read_picture
from fsslib.data.flatness import is_label_map
from tests.data.encoded import deep_png
from tests.data.encoded import grey as grey3

HEIGHT, WIDTH = 120, 160
Y, X = np.mgrid[:HEIGHT, :WIDTH]
LEFT, RIGHT = ((X - x) ** 2 + (Y - 60) ** 2 <= 30**2 for x in (45, 115))
BOTH, TWO = LEFT | RIGHT, LEFT + 2 * RIGHT
RIM = ((X - 45) ** 2 + (Y - 60) ** 2 <= 34**2) & ~LEFT
VOC, LABELS = np.where(RIM, 255, LEFT * 15), np.where(RIM, 255, LEFT * 1)
LARGE = (X >= 12) & (X < 148) & (Y >= 8) & (Y < 112)
CORNER = (X < 8) & (Y < 8)
NET = (X % 4 == 0) | (Y % 4 == 0)
DOT = (X - 115) ** 2 + (Y - 60) ** 2 < 4**2
BOX = (X >= 20) & (X < 100) & (Y >= 30) & (Y < 90)
NOISE = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)

PAINT = [(0, 0, 0), (200, 40, 60), (30, 60, 90)]
ON_WHITE = [(255,) * 3, *PAINT[1:]]
RED = [(255,) * 3, (255, 0, 0), (0, 0, 255)]
SORTED = [(0, 0, 0), (224, 224, 192), (192, 128, 128)]


def picture(height=HEIGHT, width=WIDTH) -> Image.Image:
    """Something like a photograph: shades, an edge and noise."""
    y, x = np.mgrid[:height, :width]
    values = np.stack([90 + 60 * np.sin(x / 17), 120 + 70 * (y > x / 2), 60 + y / 2], -1)
    return Image.fromarray((values + np.random.default_rng(0).normal(0, 9, values.shape)).clip(0, 255).astype(np.uint8))


def grey(values, dtype=np.uint8) -> Image.Image:
    return Image.fromarray(np.asarray(values).astype(dtype))


def white(mask) -> Image.Image:
    return grey(mask * 255)


def blurred(values, radius) -> Image.Image:
    return grey(values).filter(ImageFilter.GaussianBlur(radius))


def paletted(values, colours) -> Image.Image:
    image = grey(values)
    image.putpalette(np.asarray(colours, np.uint8).ravel().tolist())
    return image


def coloured(values, colours) -> Image.Image:
    return Image.fromarray(np.asarray(colours, np.uint8)[np.asarray(values, int)])


def rgba(colours, alpha) -> Image.Image:
    """A layer of `colours`, or of one colour, as opaque as `alpha` says."""
    colours = np.broadcast_to(np.asarray(colours), (HEIGHT, WIDTH, 3))
    return Image.fromarray(np.dstack([colours, np.asarray(alpha)]).astype(np.uint8))


# Writers: from a folder to the file in it that is given as a mask


def image(drawn, suffix="png", **options):
    def write(folder):
        drawn.save(folder / f"m.{suffix}", **options)
        return folder / f"m.{suffix}"

    return write


def via(drawn, suffix, **options):
    """A PNG of what an earlier file of a lossy kind left of a mask."""

    def write(folder):
        with Image.open(image(drawn, suffix, **options)(folder)) as before:
            return image(before.copy())(folder)

    return write


def array(values):
    return lambda folder: np.save(folder / "m.npy", values) or folder / "m.npy"


def text(content, suffix="json"):
    return lambda folder: (folder / f"m.{suffix}").write_text(content) and folder / f"m.{suffix}"


def png(values, bits, kind=0):
    """A PNG of few or many bits a channel, in grey (kind 0) or colours (2), which Pillow reads and does not write."""
    content = deep_png(grey3(values) if kind else np.asarray(values), bits, kind)
    return lambda folder: (folder / "m.png").write_bytes(content) and folder / "m.png"


def labelme(*shapes, **more):
    """Shapes (label, corners, kind) as LabelMe writes them."""
    fields = ("label", "points", "shape_type")
    return text(json.dumps({"shapes": [dict(zip(fields, shape)) for shape in shapes], **more}))


def coco(*entries, name="a.png", more=()):
    images = [{"id": 7, "file_name": name, "height": float(HEIGHT), "width": WIDTH}, *more]
    entries = [{"id": n, "image_id": 7, "category_id": 0, "iscrowd": 0, **entry} for n, entry in enumerate(entries)]
    categories = [{"id": 0, "name": "mug"}, {"id": 3, "name": "pen"}]
    return text(json.dumps({"images": images, "annotations": entries, "categories": categories}))


CORNERS = [[20, 30], [100, 30], [100, 90], [20, 90]]
ALL = [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]
HOLE, SMALL = ([[40, 50], [x, 50], [x, y], [40, y]] for x, y in ((60, 70), (50, 60)))
MUG = ("mug", CORNERS, "polygon")
RUNS = coco_mask.encode(np.asfortranarray(RIGHT.astype(np.uint8)))
COUNTS = np.diff(np.flatnonzero(np.diff(np.r_[2, RIGHT.T.ravel(), 2]))).tolist()
POLYGON = {"segmentation": [[value for corner in CORNERS for value in corner]]}
COMPRESSED = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": RUNS["counts"].decode()}, "category_id": 3}
LISTED = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": COUNTS}}
JOINED = "holds 2 objects or classes, which count as one"
SOFT = blurred(BOTH * 255, 3)

UNDERSTOOD = {
    "what is not black, all colours as one,": {
        "two numbers": (image(grey(TWO)), BOTH, JOINED),
        "two numbers, one almost black": (image(grey(LEFT + 200 * RIGHT)), BOTH, JOINED),
        "two numbers of 16 bits": (image(grey(LEFT * 3 + RIGHT * 900, np.uint16), "tif"), BOTH, JOINED),
        "two numbers of 32 bits": (image(grey(LEFT * 3 + RIGHT * 70000, np.int32), "tif"), BOTH, JOINED),
        "two fractions": (image(grey(LEFT * 1 + RIGHT * 7.5, np.float32), "tif"), BOTH, JOINED),
        "two colours": (image(coloured(TWO, PAINT)), BOTH, f"{JOINED}: #1e3c5a, #c8283c"),
        "two colours in a palette of 4 bits": (image(paletted(TWO, PAINT), bits=4), BOTH, JOINED),
        "two colours in lossless WebP": (image(coloured(TWO, PAINT), "webp", lossless=True), BOTH, JOINED),
        "two greys, both bright": (image(grey(LEFT * 128 + RIGHT * 255)), BOTH, JOINED),
        "two greys of 48 bits": (png(LEFT * 30000 + RIGHT * 60000, 16, 2), BOTH, JOINED),
        "a bitmap": (image(grey(TWO), "BMP"), BOTH, JOINED),
        "an array with an axis before": (array(TWO[None]), BOTH, JOINED),
    },
    "what is not black": {
        "0 and 255": (image(white(LEFT)), LEFT, None),
        "0 and 1": (image(grey(LEFT)), LEFT, None),
        "one bit": (image(Image.fromarray(LEFT)), LEFT, None),
        "16 bits": (image(grey(LEFT * 65535, np.uint16)), LEFT, None),
        "fractions": (image(grey(LEFT * 0.7, np.float32), "tif"), LEFT, None),
        "one colour in a palette of 1 bit": (image(paletted(LEFT, PAINT[:2]), bits=1), LEFT, None),
        "a palette in dark red": (image(paletted(LEFT, [(0, 0, 0), (128, 0, 0)])), LEFT, None),
        "a painting in blue": (image(coloured(LEFT, [(0, 0, 0), (0, 0, 200)])), LEFT, None),
        "opaque with an alpha channel": (image(rgba(coloured(LEFT, PAINT), 255 + 0 * LEFT)), LEFT, None),
        "an array of truth values": (array(LEFT), LEFT, None),
        "an array with an axis behind": (array(LEFT[..., None] * 1.0), LEFT, None),
        "VOC's palette": (image(paletted(VOC, voc_palette())), LABELS, "is void"),
        "VOC's palette, sorted anew": (image(paletted(LEFT * 2 + RIM * 1, SORTED)), LABELS, "is void"),
        "VOC's colours": (image(coloured(VOC, voc_palette())), LABELS, "is void"),
        "VOC's numbers in grey": (image(grey(VOC)), LABELS, "is void"),
        "1 and 255 in grey": (image(grey(LABELS)), LABELS, "is void"),
        "-1": (image(grey(np.where(RIM, -1, LEFT), np.int32), "tif"), LABELS, "is void"),
        "-1 in an array": (array(np.where(RIM, -1, LEFT * 4)), LABELS, "is void"),
        "-1 around the object": (image(grey(np.where(LEFT, 1, -1), np.int32), "tif"), LEFT, "has no 0"),
        "no number": (array(np.where(RIM, np.nan, LEFT * 0.5)), LABELS, "is void"),
        "a net of fine lines": (image(white(NET)), NET, "made of dots or fine lines"),
        "hatching": (image(grey(((X + Y) % 3 == 0) * 1)), (X + Y) % 3 == 0, "made of dots or fine lines"),
        "fine lines in a colour": (image(coloured(NET, PAINT)), NET, "made of dots or fine lines"),
        "a transparent margin": (
            image(rgba(LEFT[..., None] * 255, BOX * 255)),
            LEFT & BOX,
            "margin",
        ),
        "a colour on black in a transparent margin": (
            image(rgba(coloured(LEFT, PAINT), BOX * 255)),
            LEFT & BOX,
            "margin",
        ),
        "a large object on black with transparent corners": (
            image(rgba(coloured(LARGE, PAINT), 255 - CORNER * 255)),
            LARGE,
            "margin",
        ),
        "all transparent": (image(rgba(coloured(LEFT, PAINT), 0 * LEFT)), LEFT, None),
        "inverted": (image(white(~LEFT)), ~LEFT, "invert the mask"),
        "nothing": (image(grey(0 * LEFT)), 0 * LEFT, "taken to show no object"),
        "everything": (image(white(LEFT | ~LEFT)), LEFT | ~LEFT, "leaves no background"),
    },
    "what is not transparent": {
        "drawn in black on a transparent layer": (image(rgba(0, LEFT * 255)), LEFT, None),
        "cut out": (image(rgba(picture(), LEFT * 255)), LEFT, None),
        "colour where it is transparent": (image(rgba(255, LEFT * 255)), LEFT, None),
        "a layer of 40 %": (image(rgba((255, 0, 0), LEFT * 102)), LEFT, None),
        "a black layer of 40 %": (image(rgba(0, LEFT * 102)), LEFT, None),
        "a transparent entry of a palette": (image(paletted(LEFT, PAINT[::-1]), transparency=0), LEFT, None),
    },
    "what is at least half as bright as the brightest pixel": {
        "JPEG": (image(white(BOTH), "jpg", quality=75), BOTH, None),
        "JPEG, poor": (image(white(BOTH), "jpg", quality=30), BOTH, None),
        "JPEG in colours": (
            image(coloured(LEFT, [(0, 0, 0), (255, 0, 0)]), "jpeg", quality=95, subsampling=0),
            LEFT,
            None,
        ),
        "CMYK": (image(white(LEFT).convert("CMYK"), "jpg"), LEFT, None),
        "PNG of a JPEG": (via(white(BOTH), "jpg", quality=60), BOTH, None),
        "PNG of the best JPEG": (via(white(BOTH), "jpg", quality=100), BOTH, None),
        "PNG of a WebP": (via(white(BOTH), "webp", quality=40), BOTH, None),
        "PNG of a JPEG in colours": (via(coloured(BOTH, PAINT), "jpg", quality=80), BOTH, None),
        "a soft brush": (image(SOFT), BOTH, None),
        "an array of shares": (array(np.asarray(SOFT) / 255), BOTH, None),
        "video's grey": (image(grey(16 + BOTH * 219), "jpg"), BOTH, None),
        "scaled down": (
            image(white(np.kron(BOTH, np.ones((3, 3)))).resize((WIDTH, HEIGHT), Image.BICUBIC)),
            BOTH,
            None,
        ),
        "a small dark object in a JPEG": (image(grey(LEFT * 255 + DOT * 40), "jpg", quality=90), LEFT, "has 1 spot(s)"),
        "a small dark object, blurred": (image(blurred(LEFT * 255 + DOT * 120, 1)), LEFT, "has 1 spot(s)"),
    },
    "the brighter tone": {"two tones": (image(grey(60 + LEFT * 140)), LEFT, "two tones and no black")},
    "what is outlined": {
        "LabelMe's polygon": (labelme(MUG, imageHeight=HEIGHT, imageWidth=WIDTH), BOX, None),
        "LabelMe's, as of old": (labelme(MUG[:2]), BOX, None),
        "LabelMe's rectangle": (labelme(("mug", [[100, 90], [20, 30]], "rectangle")), BOX, None),
        "LabelMe's circle": (
            labelme(("a", [[45.5, 60.5], [76, 60.5]], "circle"), ("b", CORNERS)),
            BOX | LEFT,
            f"{JOINED}: a, b",
        ),
        "LabelMe's background": (labelme(("_background_", ALL), MUG, ("mug ", CORNERS)), BOX, None),
        "LabelMe's hole and void": (
            labelme(MUG, ("__ignore__", HOLE), ("background", SMALL)),
            np.where((X >= 40) & (X < 60) & (Y >= 50) & (Y < 70), np.where((X < 50) & (Y < 60), 0, 255), BOX),
            "is void",
        ),
        "COCO's polygon of class 0, in folders": (coco(POLYGON, name="train/set 1/a.png"), BOX, None),
        "COCO's runs as text": (coco(COMPRESSED), RIGHT, None),
        "COCO's runs as a list": (coco(LISTED), RIGHT, None),
        "COCO's crowd": (coco(POLYGON, LISTED | {"iscrowd": 1}), np.where(RIGHT, 255, BOX), "is void"),
        "COCO's two classes": (coco(POLYGON, COMPRESSED), BOX | RIGHT, f"{JOINED}: mug, pen"),
        "COCO's ids as text": (coco(POLYGON | {"image_id": "7", "category_id": "0", "iscrowd": "0"}), BOX, None),
        "COCO's object without outline": (coco(POLYGON, {"segmentation": []}), BOX, "has 1 without outline in a.png"),
        "COCO's name in capitals": (coco(POLYGON, name="A.PNG"), BOX, None),
        "COCO's empty image": (coco(), 0 * BOX, "is empty"),
    },
}


@pytest.fixture
def drawn_on(tmp_path):
    """The mask that a writer gives, as it is understood for a picture."""
    picture().save(tmp_path / "a.png")
    return lambda write, *choose: read_drawn_mask(write(tmp_path), tmp_path / "a.png", *choose)


@pytest.mark.parametrize(("rule", "kind"), [(rule, kind) for rule, kinds in UNDERSTOOD.items() for kind in kinds])
def test_a_mask_is_what_was_meant(drawn_on, rule, kind):
    write, labels, remark = UNDERSTOOD[rule][kind]
    mask = drawn_on(write)
    wrong = (mask.labels.numpy() != labels).mean()
    assert wrong <= 0.004 if "half as bright" in rule or kind == "LabelMe's circle" else wrong == 0
    assert mask.rule == rule
    assert mask.share == pytest.approx((labels == 1).mean(), abs=0.003)
    assert [remark in said for said in mask.remarks] == [True] if remark else mask.remarks == ()


def pages(folder):
    white(LEFT).save(folder / "m.tif", save_all=True, append_images=[white(RIGHT)])
    return folder / "m.tif"


def wrong_pointer(folder):
    raw = image(white(LEFT), "tif")(folder).read_bytes()
    start = int.from_bytes(raw[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(raw[start : start + 2], "little")
    (folder / "m.tif").write_bytes(raw[:end] + (100).to_bytes(4, "little") + raw[end + 4 :])
    return folder / "m.tif"


def zipped(folder):
    np.savez(folder / "m.npz", LEFT)
    return (folder / "m.npz").rename(folder / "m.npy")


REFUSED = {
    "the picture's own file": (lambda folder: folder / "a.png", "holds the same pixels"),
    "the picture in another file": (image(picture(), "bmp"), "holds the same pixels"),
    "a picture of two tones in another file": (
        lambda folder: white(BOTH).save(folder / "a.png") or image(white(BOTH), "bmp")(folder),
        "holds the same pixels.* Name the picture first",
    ),
    "a photograph": (
        image(picture().rotate(180), "jpg", quality=90),
        "looks like a photograph.* Name first the picture",
    ),
    "a photograph in few colours": (image(picture().rotate(180).quantize(16)), "looks like a photograph"),
    "a photograph of 16 bits": (image(grey(NOISE * 200.0, np.uint16), "tif"), "looks like a photograph"),
    "a bright thing in the dark": (image(grey(BOTH * 200 + NOISE / 12)), "looks like a photograph"),
    "noise": (image(grey(NOISE)), "looks like a photograph"),
    "numbers in a JPEG": (image(grey(TWO), "jpg"), "numbers do not outlive a JPEG"),
    "a label map in a JPEG": (via(grey(LEFT * 90 + RIGHT * 250), "jpg", quality=80), "several tones with blurred"),
    "a label map made smaller": (image(grey(TWO * 120).resize((99, 99)).resize((WIDTH, HEIGHT))), "several tones"),
    "VOC's numbers in a JPEG": (image(grey(VOC), "jpg", quality=95), "several tones"),
    "VOC's numbers in a lossy WebP": (image(grey(VOC), "webp"), "several tones"),
    "VOC's numbers, blurred": (image(blurred(VOC, 0.7)), "several tones"),
    "VOC's numbers, rotated": (image(grey(VOC).rotate(1, Image.BICUBIC)), "several tones"),
    "a dark object in a JPEG": (image(grey(LEFT * 255 + RIGHT * 10), "jpg", quality=75), "several tones"),
    "numbers of 48 bits": (png(LEFT * 1, 16, 2), "colours of 16 bits and uses fewer"),
    "16 bits of which 0 is white": (
        image(grey(LEFT * 65535, np.uint16), "tif", tiffinfo={262: 0}),
        "16 bits of which 0 is white",
    ),
    "two layers": (image(rgba(coloured(LEFT, PAINT), LEFT * 255 + RIGHT * 102)), "several opacities"),
    "a TIFF with a wrong pointer": (wrong_pointer, "cannot be read.* damaged"),
    "a number above 2 ** 31": (image(grey(LEFT * -1294967296, np.int32), "tif"), "numbers above 2147483647"),
    "two colours as bright": (image(coloured(LEFT, RED)), "has no black.*#ff0000, #ffffff"),
    "colours without black": (image(coloured(TWO, ON_WHITE)), "has no black.*#c8283c"),
    "one pixel more": (image(white(np.pad(LEFT, ((0, 0), (0, 1))))), "is 161 x 120 pixels, its picture"),
    "one pixel less": (array(LEFT[1:]), "is 160 x 119 pixels"),
    "several pages": (pages, "holds 2 pages"),
    "scores of a network": (array(np.asarray(SOFT) / 50 - 3), "negative numbers"),
    "a stack of arrays": (array(np.stack([LEFT, RIGHT])), r"holds bool \[2, 120, 160\]"),
    "pickled objects": (array(np.array([{}])), "cannot be read"),
    "arrays in a zip": (zipped, "cannot be read.* np.save"),
    "no array": (text("x", "npy"), "cannot be read"),
    "no JSON": (text("{"), "cannot be read as JSON"),
    "JSON of many brackets": (text("[" * 100_000), "cannot be read as JSON"),
    "another JSON": (text('{"regions": []}'), "neither LabelMe's nor COCO's"),
    "a list": (text("[1]"), "neither LabelMe's nor COCO's"),
    "LabelMe's line": (labelme(("mug", CORNERS, "linestrip")), "'mug' is a linestrip"),
    "LabelMe's point": (labelme(("mug", CORNERS[:1], "point")), "'mug' is a point"),
    "LabelMe's, of a larger picture": (labelme(MUG, imageHeight=240, imageWidth=320), "is 320 x 240 pixels"),
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
def test_what_is_no_mask_is_said_in_words(drawn_on, kind):
    write, said = REFUSED[kind]
    with pytest.raises(DataError, match=f"(?s){said}"):
        drawn_on(write)


FEW_BITS = np.where(LEFT, 1, RIGHT * 3)
CHOSEN = {
    "a number": (image(grey(TWO)), 2, RIGHT),
    "a number of a palette": (image(paletted(TWO, PAINT)), "1", LEFT),
    "a number of 2 bits": (png(FEW_BITS, 2, 0), "3", RIGHT),
    "another number of 2 bits": (png(FEW_BITS, 2, 0), "1", LEFT),
    "a number of 4 bits, which Pillow stretches to 255": (png(FEW_BITS * 5, 4, 0), "15", RIGHT),
    "another number of 4 bits": (png(FEW_BITS * 5, 4, 0), "5", LEFT),
    "a colour": (image(coloured(TWO, PAINT)), "#C8283C", LEFT),
    "black in an inverted mask": (image(white(~LEFT)), "#000000", LEFT),
    "0 in an inverted mask": (image(white(~LEFT)), "0", LEFT),
    "black on a transparent layer": (image(rgba(coloured(LEFT, [(0,) * 3, (255, 0, 0)]), BOTH * 255)), "#000", RIGHT),
    "a short colour": (image(coloured(TWO, RED)), "#f00", LEFT),
    "a colour without its sign": (image(coloured(TWO, RED)), "FF0000", LEFT),
    "a colour's name": (image(coloured(TWO, RED)), "red", LEFT),
    "a grey": (image(grey(LEFT * 128 + RIGHT * 255)), "#808080", LEFT),
    "a colour on a transparent layer": (image(rgba(coloured(TWO, PAINT), BOTH * 255)), "#1e3c5a", RIGHT),
    "a colour where there is no black": (image(coloured(TWO, ON_WHITE)), "#1e3c5a", RIGHT),
    "VOC's name": (image(coloured(VOC + RIGHT * 12, voc_palette())), "person", LABELS),
    "VOC's number, sorted anew": (image(paletted(LEFT * 2 + RIM * 1, SORTED)), 15, LABELS),
    "a name in LabelMe's": (labelme(("Mug", CORNERS), ("b", [[0, 0], [9, 0], [9, 9]])), "mug", BOX),
    "a name in COCO's": (coco(POLYGON, COMPRESSED), "pen", RIGHT),
}


@pytest.mark.parametrize("kind", CHOSEN)
def test_one_class_of_a_mask_is_chosen(drawn_on, kind):
    write, choose, labels = CHOSEN[kind]
    mask = drawn_on(write, choose)
    assert np.array_equal(mask.labels.numpy(), labels)
    assert mask.rule == f"what is {choose}"
    assert not any("count as one" in remark for remark in mask.remarks)


def test_a_class_that_a_mask_has_not_is_named_with_those_it_has(drawn_on):
    mask = drawn_on(coco(POLYGON, COMPRESSED), "cup")
    assert mask.share == 0
    assert mask.remarks[0] == "m.json has no 'cup'; it has mug, pen."
    with pytest.raises(DataError, match="no classes to choose from"):
        drawn_on(image(SOFT), "#ffffff")


def test_crowds_alone_are_void_and_named(drawn_on):
    mask = drawn_on(coco(LISTED | {"iscrowd": 1}))
    assert np.array_equal(mask.labels.numpy(), RIGHT * 255)
    assert "marks all of a.png as crowds" in mask.remarks[0]
    assert "set iscrowd to 0" in mask.remarks[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (3, 3)])
def test_the_smallest_masks(tmp_path, size):
    drawn = np.arange(np.prod(size)).reshape(size) % 2 == 0
    picture(*size).save(tmp_path / "a.png")
    assert np.array_equal(read_drawn_mask(image(white(drawn))(tmp_path), tmp_path / "a.png").labels, drawn)


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


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("edges", "lines", "is_map"), [(3, 0, False), (5, 0, True), (5, 2, True)])
def test_a_label_map_goes_from_value_to_value_without_steps(edges, lines, is_map, turned):
    """Two pixels of each sharp edge are at a border, three of an edge by a step; a line is none: 1/9, 1/13, 1/19."""
    row = [value for k in range(edges + 1) for value in [200 * (k % 2)] * 4] + [0, *[200] * 4] * lines + [100, *[0] * 4]
    values = np.tile(np.array(row, np.uint8), (40, 1))
    values = values.T if turned else values
    assert is_label_map(values, values, 3) == is_map


@pytest.mark.parametrize("scale", [0.4, 1, 4])
@pytest.mark.parametrize(("suffix", "options"), [("jpg", {"quality": 75}), ("jpg", {"quality": 95}), ("webp", {})])
def test_a_mask_that_was_lossy_once_is_halved_at_every_size(tmp_path, scale, suffix, options):
    size = round(WIDTH * scale), round(HEIGHT * scale)
    drawn = np.asarray(white(BOTH).resize(size, Image.NEAREST)) > 0
    picture(*size[::-1]).save(tmp_path / "a.jpg")
    mask = read_drawn_mask(via(white(drawn), suffix, **options)(tmp_path), tmp_path / "a.jpg")
    assert (mask.labels.numpy() != drawn).mean() < 0.002


def test_several_masks_of_one_picture_are_joined(drawn_on, tmp_path):
    (tmp_path / "masks").mkdir()
    first, second = white(LEFT), paletted(np.where(BOX & ~LEFT, 255, RIGHT * 15), voc_palette())
    files = [image(drawn)(tmp_path).rename(tmp_path / "masks" / f"{n}.png") for n, drawn in ((1, first), (2, second))]
    (tmp_path / "masks" / ".hidden.png").write_bytes(b"")
    mask = drawn_on(lambda folder: folder / "masks")
    assert np.array_equal(mask.labels.numpy(), np.where(BOTH & ~(BOX & RIGHT), 1, np.where(BOX, 255, 0)))
    assert mask.remarks[0] == "2 masks of a.png are joined: 1.png, 2.png."
    assert "is void" in mask.remarks[1]
    assert np.array_equal(drawn_on(lambda _: files[::-1]).labels, mask.labels)


# Pictures: turned, deep, transparent


def numbered() -> Image.Image:
    """Every pixel in a colour of its own, so that a turn shows: the red is its column, the green its row."""
    y, x = np.mgrid[:40, :60]
    return Image.fromarray(np.stack([4 * x, 6 * y, 0 * x + 90], -1).astype(np.uint8))


def save(drawn: Image.Image, path, orientation: int | None = None):
    exif = Image.Exif()
    exif[0x0112] = orientation or 1
    drawn.save(path, **({"exif": exif} if orientation else {}))
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("drawn_on", "suffix"), [("upright", "png"), ("stored", "png"), ("upright", "tif")])
def test_a_turned_picture_comes_upright_and_its_mask_with_it(tmp_path, orientation, drawn_on, suffix):
    """Pillow turns a TIFF as it loads it, so that nothing tells how it was stored."""
    path, lies = save(numbered(), tmp_path / f"a.{suffix}", orientation), orientation >= 5
    upright, stored = read_picture(path).numpy(), np.moveaxis(np.asarray(numbered()), -1, 0)
    assert upright.shape == ((3, 60, 40) if lies else (3, 40, 60))
    # What is left of column 20 and above row 10 of the stored picture.
    right, lying = ((red < 4 * 20) & (green < 6 * 10) for red, green, _ in (upright, stored))
    drawn, remark = lying if drawn_on == "stored" else right, None
    mask = read_drawn_mask(save(white(drawn), tmp_path / "m.png"), path)
    assert np.array_equal(mask.labels.numpy(), right if lies else drawn)
    if suffix == "png" and orientation > 1 and not lies:
        remark = "would fit either way"
    elif lies and drawn_on == "stored":
        remark = "turned upright with it"
    assert [remark in said for said in mask.remarks] == [True] if remark else mask.remarks == ()


@pytest.mark.parametrize("rightly", [True, False])
def test_a_mask_that_says_itself_how_it_is_turned(tmp_path, rightly):
    marked = np.zeros((40, 60), bool)
    marked[5:20, 8:40] = True
    upright = np.rot90(marked, -1)
    path = save(white(marked if rightly else upright), tmp_path / "m.png", 6)
    mask = read_drawn_mask(path, save(numbered(), tmp_path / "a.png", 6))
    assert np.array_equal(mask.labels.numpy(), upright)
    assert mask.remarks == ()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder, where a picture is wanted"),
        (lambda path: path.write_bytes(b"<html>not found</html>"), "is not a picture.* save it"),
        (lambda path: path.write_bytes(path.read_bytes()[:2000]), "cannot be read .* damaged or cut short: copy it"),
        (lambda path: grey(np.zeros((4, 4)), np.float32).save(path, "TIFF"), "holds fractions"),
        (lambda path: grey(np.zeros((99, 99))).save(path), "is too large to be read.* Save it smaller"),
    ],
)
def test_a_picture_that_cannot_be_read_is_refused(tmp_path, monkeypatch, spoil, said):
    spoil(save(picture(40, 60), tmp_path / "a.png"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(DataError, match=said):
        read_picture(tmp_path / "a.png")
