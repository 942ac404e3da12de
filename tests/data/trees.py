"""Every data set drawn small in its real format, below a folder: what the tests of all rows (`test_sets`) open.

Paths and meanings are written here once more, and not taken from the library: a row that says otherwise fails.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsslib.data import open_task
from fsslib.data.decode import STREETS as STREET_COLOURS
from fsslib.data.decode import voc_palette
from fsslib.data.names import class_id
from fsslib.data.tasks import AdaptationTask
from tests.data.encoded import save_16_bit

SIZE = (48, 64)
VOID = 255


@dataclass
class Tree:
    """What was drawn: label maps with global class ids, by image, and where the files are."""

    labels: dict[str, np.ndarray] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)
    maps: dict[str, list[Path]] = field(default_factory=dict)


Write = Callable[[Path, np.ndarray], None]


def photograph(path: Path, labels: np.ndarray) -> None:
    """A picture with noise, in colours that its labels give."""
    noise = np.random.default_rng(0).integers(0, 40, (*labels.shape, 3))
    colours = np.stack([labels * 7 % 200, labels * 31 % 200, np.full_like(labels, 90)], -1) + noise
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colours.astype(np.uint8)).save(path)


def grey(path: Path, numbers: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers.astype(np.uint8)).save(path)


def white(path: Path, marked: np.ndarray) -> None:
    grey(path, marked * 255)


def in_palette(colours: bytes) -> Write:
    def write(path: Path, numbers: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(numbers.astype(np.uint8))
        image.putpalette(colours)
        image.save(path)

    return write


def eight_colours(path: Path, codes: np.ndarray) -> None:
    grey(path, np.stack([codes >> 2 & 1, codes >> 1 & 1, codes & 1], -1) * 255)


def boxes(seed: int, values: list[int], ground: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A map of `ground` with a box of each value, of a fifth of the picture and more; the boxes do not overlap."""
    rng, (height, width) = np.random.default_rng(seed), size
    numbers = np.full(size, ground)
    for n, value in enumerate(values):
        left, right = n * width // len(values), (n + 1) * width // len(values)
        top = int(rng.integers(0, height // 4))
        numbers[top : top + 3 * height // 4, left + 1 : right] = value
    return numbers


def maps(
    root: Path, files: Mapping[str, tuple[str, str]], meaning: Mapping[int, str | int], write: Write, ground: int = 0
) -> Tree:
    """Images with a label map each: `meaning` names the class of a number, or says 0 or VOID; three a picture."""
    tree, numbers = Tree(), list(meaning)
    to_id = {number: class_id(what) if isinstance(what, str) else what for number, what in meaning.items()}
    to_id.setdefault(ground, 0)
    for n, (image_id, (image, label_map)) in enumerate(files.items()):
        shown = [numbers[(n + k) % len(numbers)] for k in range(min(3, len(numbers)))]
        drawn = boxes(n, shown, ground, (SIZE[0] + n % 3, SIZE[1]))
        tree.labels[image_id] = np.vectorize(to_id.__getitem__)(drawn)
        photograph(root / image, drawn)
        write(root / label_map, drawn)
        tree.images[image_id], tree.maps[image_id] = root / image, [root / label_map]
    return tree


def masks(root: Path, files: Mapping[str, tuple[str, Mapping[str, str]]], write: Write = white) -> Tree:
    """Images with a mask for each class that they show: `files` has them by the class's name."""
    tree = Tree()
    for n, (image_id, (image, by_class)) in enumerate(files.items()):
        ids = [class_id(name) for name in by_class]
        tree.labels[image_id] = boxes(n, ids, 0, (SIZE[0], SIZE[1] + n % 3))
        photograph(root / image, tree.labels[image_id])
        for c, path in zip(ids, by_class.values()):
            write(root / path, tree.labels[image_id] == c)
        tree.images[image_id], tree.maps[image_id] = root / image, [root / path for path in by_class.values()]
    return tree


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode())


def draw_pascal(root: Path) -> Tree:
    """Two lists, with Windows line ends, a blank line, a repeated id, and other repositories' forms of a line."""
    voc, ids = "VOCdevkit/VOC2012", [f"2007_{n:06d}" for n in range(6)]
    files = {i: (f"{voc}/JPEGImages/{i}.jpg", f"{voc}/SegmentationClassAug/{i}.png") for i in ids}
    text(root / voc / "ImageSets/Segmentation/trainaug.txt", "\r\n".join([*ids[:3], "", ids[0], f"{ids[3]}__07", ""]))
    text(root / voc / "ImageSets/Segmentation/val.txt", "\n".join(" ".join(files[i]).replace(voc, "") for i in ids[4:]))
    return maps(
        root, files, {12: "dog", 15: "person", 20: "tvmonitor", VOID: VOID}, in_palette(voc_palette().tobytes())
    )


def draw_voc(root: Path, shown: Mapping[str, Sequence[int]], part: str = "train") -> None:
    """Images of VOC that show a box of each of these numbers, and a list that names them."""
    voc = root / "VOCdevkit" / "VOC2012"
    text(voc / "ImageSets" / "Segmentation" / f"{part}.txt", "\n".join(shown))
    for n, (image_id, numbers) in enumerate(shown.items()):
        drawn = boxes(n, [*numbers], 0, (SIZE[0] + n % 3, SIZE[1]))
        photograph(voc / "JPEGImages" / f"{image_id}.jpg", drawn)
        in_palette(voc_palette().tobytes())(voc / "SegmentationClassAug" / f"{image_id}.png", drawn)


def draw_coco(root: Path, part: str = "train2017") -> Tree:
    """Boxes as polygons, a crowd as run lengths, a small box on a large one; an image of nothing, two of a tv."""
    tree, images, annotations = Tree(), [], []
    categories = {18: "dog", 72: "tv", 1: "person"}
    for n in range(8):
        image_id, labels = f"{n:012d}", np.zeros(SIZE, dtype=int)
        images.append({"id": n, "file_name": f"{image_id}.jpg", "height": SIZE[0], "width": SIZE[1]})
        objects = [(18, 4, 2, 40, 40), (72, 20, 10, 50, 30), (1, 24, 12, 34, 22)]
        for category, left, top, right, bottom in objects[: 3 if n < 5 else 0] or objects[1 : 1 + (n > 5)]:
            outline = [left, top, right, top, right, bottom, left, bottom]
            annotations.append({"image_id": n, "category_id": category, "segmentation": [outline], "iscrowd": 0})
            labels[top:bottom, left:right] = class_id(categories[category])
        if n == 4:
            runs = {"size": list(SIZE), "counts": [0, SIZE[0], SIZE[0] * (SIZE[1] - 1)]}
            annotations.append({"image_id": n, "category_id": 1, "segmentation": runs, "iscrowd": 1})
            labels[:, 0] = VOID
        tree.images[image_id], tree.labels[image_id] = root / "coco" / part / f"{image_id}.jpg", labels
        photograph(tree.images[image_id], labels)
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": number, "name": name} for number, name in categories.items()]
    text(root / "coco" / "annotations" / f"instances_{part}.json", json.dumps(content))
    return tree


def draw_suim(root: Path) -> Tree:
    """Both parts; masks as BMP, one of them as PNG; an image without a mask."""
    places = {f"TEST/d_r_{n}_": "TEST" for n in range(4)} | {"train_val/f_r_1_": "train_val"}
    files = {}
    for image_id, part in places.items():
        name = image_id.partition("/")[2]
        files[image_id] = (
            f"SUIM/{part}/images/{name}.jpg",
            f"SUIM/{part}/masks/{name}.{'png' if '_0_' in name else 'bmp'}",
        )
    photograph(root / "SUIM/TEST/images/alone.jpg", np.zeros(SIZE, dtype=int))
    return maps(root, files, {1: "diver", 5: "reef", 6: "fish"}, eight_colours)


def draw_tiles(root: Path) -> Tree:
    """Two tiles of each defect, one of them under two exposures, and tiles without a defect."""
    numbers = {"exp1_num_100": 0, "exp2_num_130": 0, "exp1_num_9000": 1}
    files = {
        f"{defect}/{name}{d}": (f"{folder}/{name}{d}.jpg", {defect.lower(): f"{folder}/{name}{d}.png"})
        for d, defect in enumerate(("Blowhole", "Break", "Crack", "Fray", "Uneven"))
        for name in numbers
        if (folder := f"MagneticTile/MT_{defect}/Imgs")
    }
    photograph(root / "MagneticTile/MT_Free/Imgs/exp1_num_1.jpg", np.zeros(SIZE, dtype=int))
    return masks(root, files)


def draw_fss(root: Path) -> Tree:
    """A class that is the set's own, one that others have too, one under another name; files and folders lie about."""
    classes = {"abacus": "abacus", "diver": "person", "fire_hydrant": "fire hydrant", "accordion": "accordion"}
    files = {
        f"{folder}/{n}": (f"FSS-1000/{folder}/{n}.jpg", {name: f"FSS-1000/{folder}/{n}.png"})
        for folder, name in classes.items()
        for n in (1, 2, 10)
    }
    photograph(root / "FSS-1000/eiffel_tower/1.jpg", np.zeros(SIZE, dtype=int))
    photograph(root / "FSS-1000/abacus/copy.jpg", np.zeros(SIZE, dtype=int))
    return masks(root, files)


def draw_deepglobe(root: Path) -> Tree:
    """Crops of three photographs, each in the folder of every class that it shows."""
    names = {"1": "agriculture land", "2": "urban land", "3": "rangeland", "4": "forest land"}
    names |= {"5": "water", "6": "barren land"}
    files = {}
    for photo in ("119", "45", "77"):
        for cell, shown in (("00", "124"), ("35", "356")):
            crop = f"{photo}_sat_{cell}"
            by_class = {names[n]: f"Deepglobe/{n}/test/groundtruth/{crop}.png" for n in shown}
            files[crop] = (f"Deepglobe/{shown[0]}/test/origin/{crop}.jpg", by_class)
    tree = masks(root, files)
    for crop, paths in tree.maps.items():
        for path in paths[1:]:
            copy = path.parents[1] / "origin" / f"{crop}.jpg"
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(tree.images[crop].read_bytes())
    return tree


def draw_isic(root: Path) -> Tree:
    """Two lesions of each kind, some sorted into folders by other code, and the table of kinds."""
    kinds = ("nevus", "melanoma", "seborrheic keratosis") * 2
    folder, files = "ISIC/ISIC2018_Task1-2_Training_Input", {}
    for n, kind in enumerate(kinds):
        name = f"ISIC_{n:07d}"
        mask = f"ISIC/ISIC2018_Task1_Training_GroundTruth/{name}_segmentation.png"
        files[name] = (f"{folder}/{'2/' if n == 3 else ''}{name}.jpg", {kind: mask})
    rows = [f"{name},{kinds[n].replace(' ', '_')}" for n, name in enumerate(files)]
    text(root / "ISIC/class_id.csv", "\ufeffID,Class\r\n" + "\r\n".join(rows) + "\r\n")
    return masks(root, files)


def draw_lungs(root: Path) -> Tree:
    """X-rays of both hospitals; those from Montgomery have masks without "_mask", and one has none."""
    files = {f"CHNCXR_{n:04d}_0": "_mask" for n in range(3)} | {f"MCUCXR_{n:04d}_1": "" for n in range(2)}
    photograph(root / "LungSegmentation/CXR_png/CHNCXR_0099_1.png", np.zeros(SIZE, dtype=int))
    return masks(
        root,
        {
            name: (f"LungSegmentation/CXR_png/{name}.png", {"lung": f"LungSegmentation/masks/{name}{ending}.png"})
            for name, ending in files.items()
        },
    )


def draw_kvasir(root: Path) -> Tree:
    names = [f"cju{n}" for n in range(4)]
    return masks(root, {n: (f"Kvasir-SEG/images/{n}.jpg", {"polyp": f"Kvasir-SEG/masks/{n}.jpg"}) for n in names})


CAMVID_IDS = {
    "train": ("0001TP_006690", "0001TP_008220", "0001TP_008250", "0006R0_f00930", "0016E5_00390"),
    "val": ("0016E5_07959", "0016E5_07961"),
    "test": ("0001TP_008550", "0001TP_008580", "Seq05VD_f00000", "Seq05VD_f00030"),
}


def draw_camvid(root: Path) -> Tree:
    """Lists with the published absolute paths and Windows line ends, with relative ones, and all in one line."""
    files = {}
    for part, ids in CAMVID_IDS.items():
        suffix = "jpg" if part == "val" else "png"
        here = {i: (f"CamVid/{part}/{i}.{suffix}", f"CamVid/{part}annot/{i}.png") for i in ids}
        prefix = "" if part == "val" else "/SegNet/"
        lines = [" ".join(prefix + file for file in pair) for pair in here.values()]
        joint = {"train": "\r\n", "val": "\n", "test": " "}[part]
        text(root / "CamVid" / f"{part}.txt", joint.join([lines[0], *lines, ""]))
        files |= here
    meaning = {0: "sky", 1: "building", 3: "road", 5: "tree", 9: "pedestrian", 11: VOID}
    return maps(root, files, meaning, grey, ground=11)


CITY_IDS = {
    "train": tuple(f"{city}_{n:06d}_000019" for city in ("aachen", "bochum", "ulm") for n in (0, 77, 82)),
    "val": ("lindau_000000_000019", "lindau_000001_000019"),
}
STREETS = {0: VOID, 4: VOID, 7: "road", 8: "pavement", 20: "sign", 21: "tree", 24: "person", 25: "rider", 33: "bicycle"}


def draw_cityscapes(root: Path, part: str = "train", kind: str = "labelIds") -> Tree:
    """Cities to train on, one to test on, with the pictures of label maps that lie beside them."""
    files = {
        i: (f"{city}/{i}_leftImg8bit.png", f"{city}/{i}_gtFine_{kind}.png")
        for i in CITY_IDS[part]
        if (city := f"{part}/{i.partition('_')[0]}")
    }
    files = {i: (f"Cityscapes/leftImg8bit/{a}", f"Cityscapes/gtFine/{b}") for i, (a, b) in files.items()}
    tree = maps(root, files, STREETS, grey)
    for paths in tree.maps.values():
        photograph(Path(str(paths[0]).replace(kind, "color")), np.zeros(SIZE, dtype=int))
    return tree


def draw_gta5(root: Path) -> Tree:
    """Palettes of the release, and what other code made of label maps beside them."""
    files = {n: (f"GTA5/images/{n}.png", f"GTA5/labels/{n}.png") for n in ("00001", "00002", "00003", "15188")}
    grey(root / "GTA5/labels/00001_labelTrainIds.png", np.zeros(SIZE))
    return maps(root, files, STREETS | {34: VOID}, in_palette(bytes.fromhex(STREET_COLOURS)))


def draw_synthia(root: Path) -> Tree:
    folder, names = "SYNTHIA/RAND_CITYSCAPES", ("0000000", "0000001", "0000002", "0009399")
    files = {n: (f"{folder}/RGB/{n}.png", f"{folder}/GT/LABELS/{n}.png") for n in names}
    meaning = {0: VOID, 1: "sky", 2: "building", 3: "road", 6: "tree", 9: "sign", 13: VOID, 17: "rider", 22: VOID}
    return maps(root, files, meaning, save_16_bit)


TREES = {
    "pascal": draw_pascal,
    "coco": draw_coco,
    "suim": draw_suim,
    "magnetic_tile": draw_tiles,
    "fss_1000": draw_fss,
    "deepglobe": draw_deepglobe,
    "isic": draw_isic,
    "chest_xray": draw_lungs,
    "kvasir": draw_kvasir,
    "camvid": draw_camvid,
    "cityscapes": draw_cityscapes,
    "gta5": draw_gta5,
    "synthia": draw_synthia,
}


def open_drawn_streets(root: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> AdaptationTask:
    """The task from GTA5 or SYNTHIA to Cityscapes on trees drawn below `root`, at 16 pixels."""
    TREES[source](root)
    for part in CITY_IDS:
        draw_cityscapes(root, part)
    monkeypatch.setenv("FSSLIB_DATA", str(root))
    return open_task("cityscapes", source=source, targets=("cityscapes",), size=16)
