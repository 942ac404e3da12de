"""The reader of the magnetic tiles: pairs, masks, tiles kept apart, and errors a person can act on. 5 s."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsslib.data.images import DataError
from fsslib.data.magnetic_tile import DEFECTS, MagneticTile, tiles
from fsslib.data.names import class_id

Box = tuple[int, int, int, int]


def add_tile(
    root: Path,
    defect: str,
    name: str,
    box: Box,
    *,
    size: tuple[int, int] = (61, 47),
    suffixes: tuple[str, str] = (".jpg", ".png"),
    mode: str = "L",
) -> np.ndarray:
    """Write one grey photograph with its mask, whose values have the halos of a lossy copy; return the 0/1 mask."""
    folder = root / "MagneticTile" / f"MT_{defect}" / "Imgs"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    top, left, bottom, right = box
    marked = np.zeros(size, dtype=bool)
    marked[top:bottom, left:right] = True
    photograph = np.where(marked, 40, 120) + rng.integers(-8, 9, size)
    Image.fromarray(photograph.astype(np.uint8)).save(folder / f"{name}{suffixes[0]}", format="JPEG", quality=95)
    values = np.where(marked, 255, 0)
    if mode == "L":
        values = np.where(marked, rng.integers(224, 256, size), rng.integers(0, 32, size))
    Image.fromarray(values.astype(np.uint8)).convert(mode).save(folder / f"{name}{suffixes[1]}", format="PNG")
    return marked


def draw_tiles(root: Path) -> Path:
    """Two tiles of each defect with three exposures each, and what else lies about in such folders; returns `root`."""
    for k, defect in enumerate(DEFECTS):
        for number in (1000 * k + 100_000, 1000 * k + 600_000):
            for exposure in range(1, 4):
                box = (5, 5, 25 + exposure, 20 + k)
                add_tile(root, defect, f"exp{exposure}_num_{number + 20 * exposure}", box)
    folder = root / "MagneticTile" / "MT_Break" / "Imgs"
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "._exp1_num_101020.jpg").write_bytes(b"\x00\x05\x16\x07")
    (folder / "notes.txt").touch()
    add_tile(root, "Free", "exp1_num_1", (0, 0, 0, 0))
    return root


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> MagneticTile:
    return MagneticTile(draw_tiles(tmp_path_factory.mktemp("data")), size=48, keep_originals=True)


@pytest.fixture
def tree(tmp_path) -> Path:
    """One tile of each defect, which a test may damage."""
    for defect in DEFECTS:
        add_tile(tmp_path, defect, "exp1_num_7", (5, 5, 30, 30))
    return tmp_path


def file(root: Path, name: str) -> Path:
    return root / "MagneticTile" / "MT_Crack" / "Imgs" / name


# Reading


def test_every_folder_is_a_class_and_nothing_else_is_read(drawn):
    assert len(drawn) == 5 * 6
    assert drawn.domain == "magnetic_tile"
    assert drawn.ids[6] == "Break/exp1_num_101020"
    assert drawn.class_names == {class_id(n): n for n in ("blowhole", "break", "crack", "fray", "uneven")}
    for defect, c in DEFECTS.items():
        assert all(i.startswith(f"{defect}/") for i in drawn.images_by_class[c])
        assert len(drawn.images_by_class[c]) == 6


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA"])
def test_masks_of_every_mode_are_split_at_128(tree, mode):
    marked = add_tile(tree, "Fray", "exp2_num_9", (5, 8, 20, 40), mode=mode)
    image, labels = MagneticTile(tree, size=32)._load("Fray/exp2_num_9")
    assert np.array_equal(labels.numpy(), marked * DEFECTS["Fray"])
    # The photograph is dark where its defect is, and grey.
    assert torch.equal(image[0], image[1])
    assert image[0].numpy()[marked].max() < 80 < image[0].numpy()[~marked].min()


def test_suffixes_in_capitals(tree):
    add_tile(tree, "Crack", "exp2_num_9", (5, 8, 20, 40), suffixes=(".JPG", ".PNG"))
    data = MagneticTile(tree, size=32)
    assert len(data) == 6
    assert data._load("Crack/exp2_num_9")[0].shape == (3, 61, 47)


def test_one_name_in_capitals_and_not(tree):
    add_tile(tree, "Crack", "exp1_num_7", (5, 8, 20, 40), suffixes=(".JPG", ".png"))
    with pytest.raises(DataError, match=r"exp1_num_7\.JPG and .*exp1_num_7\.jpg have one name\. Remove"):
        MagneticTile(tree, size=32)


def test_episodes_are_valid_and_show_other_tiles_in_their_supports(drawn):
    rows = drawn.sample(tuple(DEFECTS.values()), 30, ways=2, shots=2, seed="0", presence_probability=0.7)
    drawn.episode(rows).check_values()
    for row in rows:
        query = int(row.query.rpartition("_")[2]) // 500
        assert query not in {int(i.rpartition("_")[2]) // 500 for way in row.supports for i in way}


def test_numbers_that_follow_each_other_are_one_tile():
    ids = ["Fray/exp1_num_77531", "Break/exp3_num_77583", "Fray/exp6_num_77744", "Break/exp1_num_78244", "Crack/odd"]
    found = tiles(ids)
    assert found == {
        "Fray/exp1_num_77531": "tile 77531",
        "Break/exp3_num_77583": "tile 77531",
        "Fray/exp6_num_77744": "tile 77531",
        "Break/exp1_num_78244": "tile 78244",
        "Crack/odd": "Crack/odd",
    }
    assert tiles(ids[::-1]) == found


def test_the_least_share_is_the_callers(tree):
    # 10 x 1 of 61 x 47 pixels are 0.35 %.
    add_tile(tree, "Blowhole", "exp1_num_9", (5, 5, 15, 6))
    c = DEFECTS["Blowhole"]
    assert len(MagneticTile(tree).images_by_class[c]) == 1
    assert len(MagneticTile(tree, minimum_share=0.003).images_by_class[c]) == 2
    assert MagneticTile(tree).contents["Blowhole/exp1_num_9"].held == {c}


# Errors


def test_without_data_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no folder .*MT_Blowhole.Imgs\.\nTo get it, .*Magnetic-tile-defect-datasets"):
        MagneticTile()


def test_a_folder_that_was_never_unpacked(tree):
    shutil.rmtree(tree / "MagneticTile" / "MT_Uneven")
    with pytest.raises(DataError, match=r"no folder .*MT_Uneven"):
        MagneticTile(tree)


@pytest.mark.parametrize(("gone", "lonely", "other"), [(".png", ".jpg", "mask"), (".jpg", ".png", "image")])
def test_an_image_without_its_mask_and_the_reverse(tree, gone, lonely, other):
    file(tree, f"exp1_num_7{gone}").unlink()
    with pytest.raises(
        DataError, match=rf"MT_Crack.Imgs.exp1_num_7\{lonely} has no {other} .*below .*MT_Crack.Imgs\. "
    ):
        MagneticTile(tree)
    add_tile(tree, "Crack", "exp2_num_9", (5, 8, 20, 40))
    file(tree, f"exp2_num_9{gone}").unlink()
    with pytest.raises(DataError, match="1 more like it"):
        MagneticTile(tree)


def test_an_empty_folder(tree):
    for path in file(tree, "").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"MT_Crack.Imgs holds no images"):
        MagneticTile(tree)


def test_a_mask_of_another_size_than_its_image(tree):
    add_tile(tree, "Crack", "exp2_num_9", (5, 8, 20, 40), size=(40, 50))
    shutil.copy(file(tree, "exp2_num_9.png"), file(tree, "exp1_num_7.png"))
    with pytest.raises(DataError, match=r"exp1_num_7\.png: the image is 47 x 61 pixels, its label map 50 x 40"):
        MagneticTile(tree)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_files_are_named(tree, suffix):
    path = file(tree, f"exp1_num_7{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"exp1_num_7\{suffix} cannot be read"):
        MagneticTile(tree).check()


def test_a_defect_of_one_tile_cannot_be_queried(drawn):
    one = drawn.restricted(i for i in drawn.ids if not i.startswith("Crack/") or "num_10" in i)
    with pytest.raises(DataError, match=r"class \d+ \(crack\) with a query from 'tile 102020' need 1 .*there are 0"):
        one.sample([DEFECTS["Crack"]], 1)
    assert one.sample([DEFECTS["Fray"]], 1)


# The real images


@pytest.fixture(scope="module")
def real() -> MagneticTile:
    if not os.environ.get("FSSLIB_DATA"):
        pytest.skip("FSSLIB_DATA is not set: no real images to read")
    data = MagneticTile(size=128)
    if len(data) != 160:
        pytest.skip(f"FSSLIB_DATA holds {len(data)} tiles, not the subset of 160 these counts are of")
    return data


def usable(data: MagneticTile) -> list[int]:
    return [len(data.images_by_class[c]) for c in DEFECTS.values()]


@pytest.mark.realdata
def test_the_tiles_are_all_there(real):
    assert [sum(i.startswith(f"{defect}/") for i in real.ids) for defect in DEFECTS] == [32] * 5
    assert all(len(classes.held) == 1 for classes in real.contents.values())
    # In the order Blowhole, Break, Crack, Fray, Uneven.
    assert usable(real) == [0, 32, 2, 23, 32]
    assert usable(MagneticTile(size=128, minimum_share=0.005)) == [8, 32, 13, 28, 32]
    assert usable(MagneticTile(size=128, minimum_share=0.003)) == [32, 32, 30, 30, 32]
    real.check()


@pytest.mark.realdata
def test_the_small_defects_cover_less_than_half_a_per_cent(real):
    for defect in ("Blowhole", "Crack"):
        shares = [float((real._labels(i) > 0).float().mean()) for i in real.ids if i.startswith(f"{defect}/")]
        assert 0.0035 < float(np.median(shares)) < 0.0045


@pytest.mark.realdata
def test_images_of_one_real_tile_are_never_support_and_query(real):
    classes = [DEFECTS[name] for name in ("Break", "Fray", "Uneven")]
    tile_of = tiles(real.ids)
    assert [len({tile_of[i] for i in real.images_by_class[c]}) for c in classes] == [8, 4, 7]
    rows = real.sample(classes, 60, shots=5)
    assert not any(tile_of[row.query] == tile_of[i] for row in rows for i in row.supports[0])
    real.episode(rows[:6]).check_values()
