"""The data sets on real images, in the layouts of their archives: counts, facts and episodes. 25 s."""

import os
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from fsslib.data import open_task
from fsslib.data.check import check
from fsslib.data.decode import DataError
from fsslib.data.images import LabelledImageSet
from fsslib.data.masks import read_mask
from fsslib.data.names import class_id
from fsslib.data.openers import CAMVID_PARTS, camvid_part
from fsslib.data.quirks import drive_of_each, tiles
from fsslib.data.sets import open_images

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not os.environ.get("FSSLIB_DATA"), reason="FSSLIB_DATA is not set: no real images to read"),
]
AT_HAND = {
    "pascal": (566, {"dog": 167, "cat": 136, "person": 127, "diningtable": 22, "aeroplane": 0}),
    "camvid": (701, {"sky": 696, "road": 701, "pole": 76}),
    "magnetic_tile": (160, {"blowhole": 0, "break": 32, "crack": 2, "fray": 23, "uneven": 32}),
    "suim": (8, {"person": 5, "aquatic plant": 0, "wreck": 2, "robot": 2, "reef": 7, "fish": 4, "sea floor": 0}),
    "fss_1000": (5, {"african elephant": 5}),
    "kvasir": (5, {"polyp": 5}),
}
"""Images of the subsets that the facts here are of, and how many of them show a class large enough."""


def opened(name: str, size: int = 128) -> LabelledImageSet:
    images, (count, _) = open_images(name, size=size), AT_HAND[name]
    if len(images) != count:
        pytest.skip(f"FSSLIB_DATA holds {len(images)} images of {name}, not the subset of {count} the facts are of")
    return images


@pytest.mark.parametrize("name", AT_HAND)
def test_the_images_are_all_there_and_make_episodes(name):
    images = opened(name)
    found = {title: len(images.images_by_class[class_id(title)]) for title in AT_HAND[name][1]}
    assert found == AT_HAND[name][1]
    if name not in ("pascal", "camvid"):  # which take half a minute
        assert check(images).damaged == {}
    classes = images.usable_classes(minimum_images=5)
    shots = 2 if name in ("pascal", "camvid") else 1
    rows = images.sample(classes, 12, ways=min(2, len(classes)), shots=shots, seed="0", presence_probability=1.0)
    episode = images.episode(rows)
    assert (episode.support_masks == 1).flatten(3).any(-1).all()
    assert episode.presence.any(1).all()
    group_of = images._groups or {i: i for i in images.ids}
    assert not any(group_of[i] == group_of[row.query] for row in rows for way in row.supports for i in way)


def test_folds_of_the_voc_subset():
    voc = opened("pascal", 64)
    asked = {1: "car cat chair cow", 2: "diningtable dog horse person", 3: "pottedplant sheep sofa tvmonitor"}
    tasks = {fold: open_task("pascal", fold=fold, size=64) for fold in asked}
    assert {f: " ".join(voc.class_names[c] for c in task.test_classes) for f, task in tasks.items()} == asked
    # Training loses 54, 58 and 41 % of the images.
    assert {fold: len(task.train) for fold, task in tasks.items()} == {1: 262, 2: 237, 3: 335}
    assert {fold: len(task.train_classes) for fold, task in tasks.items()} == {1: 8, 2: 9, 3: 10}
    twelve = tuple(c for task in tasks.values() for c in task.test_classes)
    assert voc.usable_classes(minimum_images=20) == open_task("pascal_all", size=64).test_classes == twelve
    with pytest.raises(DataError, match=r"Fold 0 .*aeroplane 0, bicycle 6, bird 5, boat 2, bottle 18"):
        open_task("pascal", fold=0, size=64)
    assert [len(open_images("pascal", part=part, size=64)) for part in ("trainaug", "val")] == [385, 181]


def test_the_drives_of_camvid():
    drives = drive_of_each(opened("camvid", 64).ids)
    assert Counter(drives.values()) == {"0001TP": 124, "0006R0": 101, "0016E5": 305, "Seq05VD": 171}
    parts = {name: camvid_part(name, 60) for name in CAMVID_PARTS}
    assert [len(part) for part in parts.values()] == [305, 101, 171, 52, 62, 62]
    frame = {name: [int(i.split("_")[1]) for i in part.ids] for name, part in parts.items() if name[:4] == "dusk"}
    assert (frame["dusk_train"][0], frame["dusk_train"][-1]) == (6690, 8220)
    assert (frame["dusk_test"][0], frame["dusk_test"][-1]) == (8550, 10380)
    # At 30 frames a second: the lists' own cut is one second wide, ours eleven.
    assert frame["dusk_test"][0] - frame["dusk_train_all"][-1] == 30
    assert frame["dusk_test"][0] - frame["dusk_train"][-1] == 11 * 30
    validation = [int(i.split("_")[1]) for i in parts["day_val"].ids]
    trained = [int(i.split("_")[1]) for i in parts["day_train"].ids if drives[i] == "0016E5"]
    assert set(np.diff(validation)) == {2}
    assert not [t for t in trained if validation[0] - 30 < t < validation[-1] + 30]
    day, dusk = parts["day_test"], parts["dusk_test"]
    brightness = [part.images(part.ids[::6]).images.mean().item() for part in (day, dusk)]
    assert brightness[1] < 0.75 * brightness[0]
    pixels = torch.bincount(dusk.images(dusk.ids[::6]).labels.flatten(), minlength=256)[:11]
    shares = pixels / pixels.sum()
    assert (shares > 0).all()
    assert shares[[0, 3]].min() > 0.1, "sky and road"


def test_the_sea_floor_is_below_the_water():
    suim = opened("suim")
    assert [sum(class_id(name) in shown.held for shown in suim.contents.values()) for name in ("diver", "reef")] == [
        6,
        7,
    ]
    rows = {c: [] for c in (0, class_id("reef"))}
    for image_id in suim.ids:
        labels = suim.original(image_id)[1]
        for c, found in rows.items():
            found.append((labels == c).nonzero()[:, 0].float() / len(labels))
    water, reef = (torch.cat(found).mean() for found in rows.values())
    assert water < 0.45 < 0.6 < reef


def test_tiles_and_how_small_their_defects_are():
    images = opened("magnetic_tile")
    assert Counter(i.partition("/")[0] for i in images.ids) == dict.fromkeys(
        ("Blowhole", "Break", "Crack", "Fray", "Uneven"), 32
    )
    tile_of = tiles(images.ids)
    classes = [class_id(name) for name in ("break", "fray", "uneven")]
    assert [len({tile_of[i] for i in images.images_by_class[c]}) for c in classes] == [8, 4, 7]
    for defect in ("Blowhole", "Crack"):
        shares = [(images.original(i)[1] > 0).float().mean() for i in images.ids if i.startswith(f"{defect}/")]
        assert 0.0035 < float(np.median(shares)) < 0.0045


def edges_along(image: torch.Tensor, marked: torch.Tensor) -> float:
    """Mean step in brightness across the outline of a mask."""
    grey, marked = image.float().mean(0), marked.float()
    steps = [(grey[1:] - grey[:-1]).abs()[(marked[1:] != marked[:-1])]]
    steps += [(grey[:, 1:] - grey[:, :-1]).abs()[(marked[:, 1:] != marked[:, :-1])]]
    return float(torch.cat(steps).mean())


def test_outlines_of_real_masks_lie_on_edges_of_their_images():
    """Twice the step in brightness that the same outlines, mirrored, lie on. Not of polyps: they have no sharp edge."""
    images = opened("fss_1000")
    elephants = [images.original(image_id) for image_id in images.ids]
    true = np.mean([edges_along(image, labels > 0) for image, labels in elephants])
    mirrored = np.mean([edges_along(image, labels.flip(1) > 0) for image, labels in elephants])
    assert true > 2 * mirrored
    # As counted with Pillow.
    shares = [float((labels > 0).float().mean()) for _, labels in elephants]
    assert shares == pytest.approx([0.2152, 0.1217, 0.3222, 0.2697, 0.3896], abs=5e-5)


def test_no_real_image_passes_for_its_mask_in_grey_or_in_colour(tmp_path):
    for path in (place.image for name in ("fss_1000", "kvasir") for place in opened(name).files.values()):
        with Image.open(path) as image:
            for mode in ("L", "RGB"):
                image.convert(mode).save(tmp_path / "mask.png")
                with pytest.raises(DataError, match=r"is a picture in|a tone of"):
                    read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize(("fold", "person"), [(2, True), (3, False)])
def test_photographs_are_learnt_and_the_sea_is_asked(fold, person):
    pytest.importorskip("pycocotools")
    opened("suim")
    task = open_task("photos", fold=fold, targets=("suim",), size=64)
    asked = task.classes_in("suim")
    assert (class_id("person") in asked) == person
    assert (class_id("person") in task.train_classes) != person
    assert {class_id("reef"), class_id("fish")} <= set(asked)
    assert not set(asked) & set(task.train_classes)
    assert next(task.exams(12, seed="x")["suim"].batches(12)).presence.any(1).all()


def test_what_the_full_plans_ask_of_the_sets_at_hand():
    pytest.importorskip("pycocotools")
    task = open_task("coco", fold=1, targets=("pascal", "suim", "kvasir"), size=64)
    asked = {domain: {task.tests[domain].class_names[c] for c in task.classes_in(domain)} for domain in task.tests}
    assert asked["pascal"] == {"bicycle", "horse", "sofa"}
    assert asked["kvasir"] == {"polyp"}
    assert {"reef", "fish"} <= asked["suim"]
    with pytest.raises(DataError, match=r"fss_1000, part test, has no image with a label map"):
        open_task("coco", fold=1, targets=("fss_1000",), size=64)
