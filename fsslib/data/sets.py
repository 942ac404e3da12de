"""Every real data set as a row; what it is and where it comes from stands in data_sets.yaml.

The tests of all rows are in tests/data/test_sets.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fsslib.data import SPELLINGS
from fsslib.data.coco import PARTS as COCO_PARTS
from fsslib.data.coco import find_or_paint
from fsslib.data.decode import PALETTES, DataError, colour_codes, read_label_map
from fsslib.data.images import LabelledImageSet
from fsslib.data.layouts import Layout, find, variant
from fsslib.data.masks import read_mask
from fsslib.data.names import CLASS_NAMES, COCO_CLASSES, fss_1000
from fsslib.data.quirks import (
    CAMVID_PARTS,
    CITYSCAPES,
    CUT,
    STREETS,
    VOC_PARTS,
    as_listed,
    before,
    camvid_lists,
    camvid_map,
    city_of_each,
    cropped,
    drive_of_each,
    isic_kinds,
    larger_masks,
    of_one_size,
    of_their_part,
    read_red_16_bit,
    streets_map,
    tiles,
    voc_lists,
)

SYNTHIA = dict(zip((3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11), STREETS))
"""Of SYNTHIA's numbers 0 is void, 13 a parking slot and 14 roadwork; 13, 16, 18 and 20 never occur."""

LANE_MARKING = 22
CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]

SUBSETS = {
    19: tuple(range(19)),
    16: (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
    13: (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18),
}
"""The classes that scores from SYNTHIA to Cityscapes are given over, by how many they are.

SYNTHIA has no terrain, truck or train, hence 16; 13 leave out wall, fence and pole too, and are what PixDA reports. All
come from one `SegmentationMeter` over 19 classes: `meter.miou_of(SUBSETS[16])`. The shortcut "mIoU of 19 x 19 / 16" is
right only where the three absent classes score 0: not for a model that has learnt them from labelled target images.
"""

PIXDA_ONE_SHOT = (
    *("aachen_000082_000019", "bochum_000000_016758", "bremen_000167_000019", "cologne_000042_000019"),
    *("darmstadt_000054_000019", "dusseldorf_000145_000019", "erfurt_000012_000019", "hamburg_000000_008221"),
    *("hanover_000000_055937", "jena_000029_000019", "krefeld_000000_026919", "monchengladbach_000000_031623"),
    *("strasbourg_000001_034494", "stuttgart_000019_000019", "tubingen_000020_000019", "ulm_000077_000019"),
    *("weimar_000110_000019", "zurich_000050_000019"),
)
"""The image of each city that PixDA's released code trains on at one shot. One draw, fixed: how much a score depends on
it the release does not say."""

ISIC_IMAGES = "ISIC/ISIC2018_Task1-2_Training_Input"
LUNGS = "LungSegmentation"

_ROWS = (
    Layout(
        "pascal",
        ["VOCdevkit/VOC2012/JPEGImages/{name}.jpg"],
        ["VOCdevkit/VOC2012/SegmentationClassAug/{name}.png"],
        {c: CLASS_NAMES[c] for c in range(1, 21)},
        domain="photo",
        parts=VOC_PARTS,
        listed=voc_lists,
    ),
    Layout(
        "coco",
        ["coco/{part}/*.jpg"],
        ["coco/annotations/instances_{part}.json"],
        {c: CLASS_NAMES[c] for c in sorted(COCO_CLASSES)},
        domain="photo",
        read=lambda path: read_label_map(path, {}),
        parts=COCO_PARTS,
        default="train2017",
        made=find_or_paint,
    ),
    Layout(
        # Divers are people, with their gear: whoever learnt people has seen them. Open water is background, as in the
        # few-shot papers. The names tell no dive, so nothing keeps images of one dive apart.
        "suim",
        ["SUIM/{part}/images/{name}.jpg"],
        ["SUIM/{part}/masks/{name}.bmp", "SUIM/{part}/masks/{name}.png"],
        dict(enumerate(("diver", "aquatic plant", "wreck", "robot", "reef", "fish", "sea floor"), start=1)),
        id="{part}/{name}",
        read=colour_codes,
        parts=("train_val", "TEST"),
        fitted=cropped,
        quirks=[larger_masks],
        lonely=True,
    ),
    Layout(
        # Blowhole and Crack cover 0.4 % of an image in the median. MT_Free, tiles without defects, is left alone.
        "magnetic_tile",
        ["MagneticTile/MT_{class}/Imgs/{name}.jpg"],
        ["MagneticTile/MT_{class}/Imgs/{name}.png"],
        {name: name.lower() for name in ("Blowhole", "Break", "Crack", "Fray", "Uneven")},
        id="{class}/{name}",
        read=read_mask,
        grouped=tiles,
    ),
    Layout(
        # Folders of other names and files that are no number (1.jpeg, Thumbs.db) lie about in the release.
        "fss_1000",
        ["FSS-1000/{class}/{number}.jpg"],
        ["FSS-1000/{class}/{number}.png"],
        fss_1000(),
        id="{class}/{number}",
        read=read_mask,
        parts=("trn", "val", "test"),
        quirks=[of_their_part],
        sparse=True,
    ),
    Layout(
        # A crop lies once in the folder of each class it shows; here it is one image, and its masks are one label map.
        # Unknown land is background. Published code draws supports and query from one photograph, as it happens.
        "deepglobe",
        [CUT + "/{class}/test/origin/{crop}_sat_{cell}.jpg", "Deepglobe/{class}/test/origin/{crop}_sat_{cell}.jpg"],
        [
            CUT + "/{class}/test/groundtruth/{crop}_mask_{cell}.png",
            "Deepglobe/{class}/test/groundtruth/{crop}_sat_{cell}.png",
        ],
        dict(zip("123456", ("agriculture land", "urban land", "rangeland", "forest land", "water", "barren land"))),
        id="{crop}_sat_{cell}",
        read=read_mask,
        quirks=[as_listed],
        grouped=before(r"(.+_sat)_.+", "A crop is called as 119_sat_00: cut the crops again."),
    ),
    Layout(
        # Masks are read from their one folder only: a released script sorts copies of the photographs, named as masks.
        "isic",
        [ISIC_IMAGES + "/{name}.jpg", ISIC_IMAGES + "/*/{name}.jpg"],
        ["ISIC/ISIC2018_Task1_Training_GroundTruth/{name}_segmentation.png"],
        {name: name for name in ("nevus", "melanoma", "seborrheic keratosis")},
        read=read_mask,
        quirks=[isic_kinds],
    ),
    Layout(
        # Of the 800 X-rays 704 have a mask; those from Montgomery without "_mask" in its name.
        "chest_xray",
        [LUNGS + "/CXR_png/{name}.png"],
        [LUNGS + "/masks/{name}_mask.png", LUNGS + "/masks/{name}.png"],
        {1: "lung"},
        read=read_mask,
        lonely=True,
    ),
    Layout("kvasir", ["Kvasir-SEG/images/{name}.jpg"], ["Kvasir-SEG/masks/{name}.jpg"], {1: "polyp"}, read=read_mask),
    Layout(
        # Frames of one drive resemble each other. Every pixel is of some class or void.
        "camvid",
        ["CamVid/{part}/{name}.png", "CamVid/{part}/{name}.jpg"],
        ["CamVid/{part}annot/{name}.png"],
        dict(enumerate(CAMVID)),
        read=camvid_map,
        void=(11,),
        parts=CAMVID_PARTS,
        listed=camvid_lists,
        grouped=drive_of_each,
    ),
    Layout(
        "cityscapes",
        ["Cityscapes/leftImg8bit/{part}/*/{name}_leftImg8bit.png"],
        [f"Cityscapes/gtFine/{{part}}/*/{{name}}_gtFine_{kind}.png" for kind in ("labelIds", "labelTrainIds")],
        CITYSCAPES,
        read=streets_map,
        void=sorted({*range(34)} - CITYSCAPES.keys()),
        parts=("train", "val"),
        default="train",
        grouped=city_of_each,
    ),
    Layout(
        # What other code made of label maps lies beside them in many copies (00001_labelTrainIds.png).
        "gta5",
        ["GTA5/images/{number}.png"],
        ["GTA5/labels/{number}.png"],
        CITYSCAPES,
        id="{number}",
        read=lambda path: read_label_map(path, PALETTES["cityscapes"]),
        void=sorted({*range(35)} - CITYSCAPES.keys()),
        quirks=[of_one_size],
    ),
    Layout(
        # Lane markings, 1.4 % of all pixels, are void as in most released code (CLAN, FADA, DAFormer).
        "synthia",
        ["SYNTHIA/RAND_CITYSCAPES/RGB/{number}.png"],
        ["SYNTHIA/RAND_CITYSCAPES/GT/LABELS/{number}.png"],
        SYNTHIA,
        id="{number}",
        read=read_red_16_bit,
        void=sorted({*range(23)} - SYNTHIA.keys()),
    ),
)
LAYOUTS: Mapping[str, Layout] = {layout.name: layout for layout in _ROWS}
"""The data sets by name."""

LAYOUTS |= {f"coco_{part}": replace(LAYOUTS["coco"], default=part) for part in COCO_PARTS[1:]} | {
    # The 566 X-rays that the loaders of CD-FSS (PATNet, IFA) read: they cut nine characters off a mask's name, and the
    # masks from Montgomery have no "_mask" to lose. Published numbers are of these.
    "chest_xray_shenzhen": variant(
        LAYOUTS["chest_xray"],
        "chest_xray_shenzhen",
        images=[LUNGS + "/CXR_png/CHNCXR_{name}.png"],
        labels=[LUNGS + "/masks/CHNCXR_{name}_mask.png"],
        id="CHNCXR_{name}",
    ),
    # Lane markings are road, as in PixDA's code.
    "synthia_lanes": variant(LAYOUTS["synthia"], "synthia_lanes", classes=SYNTHIA | {LANE_MARKING: "road"}),
}


def open_images(
    name: str,
    *,
    root: Path | str | None = None,
    part: str | None = None,
    size: int | tuple[int, int] = 256,
) -> LabelledImageSet:
    """A real data set by its name in LAYOUTS, or a part of it; `size` as `LabelledImageSet` has it.

    `root` holds the folder of the set (default: `data_root()`). With a square size every label map is read at opening,
    and once for large sets. Raises DataError, with the next step, for a set that is not there or not whole, and for
    label maps of another size than their image or with numbers that are no classes of the set.
    """
    name = SPELLINGS.get(name, name)
    if name not in LAYOUTS:
        raise DataError(f"There is no data set {name!r}; there are {', '.join(LAYOUTS)}.")
    layout = LAYOUTS[name]
    found = find(layout, root, part)
    class_names = dict(enumerate(dict.fromkeys(layout.classes.values())))
    if isinstance(size, int):
        there = {layout.ids[of] for place in found.files.values() for of in place.labels if of != ""}
        class_names = {c: title for c, title in layout.named().items() if not layout.sparse or c in there}
    images = LabelledImageSet(
        found.files,
        class_names,
        name=layout.name,
        domain=layout.domain or layout.name,
        size=size,
        groups=None if layout.grouped is None else layout.grouped(found.files),
        repainted=(lambda on_top: find(layout, root, part, on_top=on_top).files) if layout.made else None,
        notes=found.notes,
    )
    if isinstance(size, int):
        _ = images.contents  # a damaged label map is told of now
    return images


def joined(sets: Sequence[LabelledImageSet], *, name: str, domain: str) -> LabelledImageSet:
    """One set over the images of several; each image's id is the name of its set, a slash and its id there.

    Classes with one id are one class. Each set labels only the classes it has: objects of another's are background in
    its images. What counts as large, and the groups, are as in the sets; an image without a group is its own.

    Raises ValueError for sets with the same name or of different sizes, and for an id that means different classes.
    """
    sizes = {images.size for images in sets}
    if len(sizes) != 1:
        raise ValueError(f"Joined sets need one size; found {sorted(sizes)}.")
    class_names: dict[int, str] = {}
    for images in sets:
        for c, class_name in images.class_names.items():
            if class_names.setdefault(c, class_name) != class_name:
                raise ValueError(
                    f"Class {c} is {class_names[c]!r} in one set and {class_name!r} in {images.name}: joined sets "
                    "share the ids of fsslib.data.names."
                )
    if len({images.name for images in sets}) < len(sets):
        raise ValueError(f"Joined sets need different names; found {', '.join(images.name for images in sets)}.")

    def of_all(what: Callable[[LabelledImageSet], Mapping]) -> dict:
        return {f"{images.name}/{i}": found for images in sets for i, found in what(images).items()}

    groups = {
        f"{images.name}/{i}": f"{images.name}/{i if images._groups is None else images._groups[i]}"
        for images in sets
        for i in images.ids
    }
    together = LabelledImageSet(
        of_all(lambda images: images.files),
        dict(sorted(class_names.items())),
        name=name,
        domain=domain,
        size=sizes.pop(),
        groups=groups if any(images._groups for images in sets) else None,
        repainted=lambda on_top: of_all(
            lambda images: images._repainted(on_top) if images._repainted else images.files
        ),
    )
    together.contents = dict(sorted(of_all(lambda images: images.contents).items()))
    together._pixels = of_all(lambda images: images._pixels)
    return together
