"""The contract of all data sets: what every row of `LAYOUTS` does, on a small tree in its real format. 20 s."""

import re
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from fsslib.data import EPISODES, SPELLINGS
from fsslib.data.catalogue import CATALOGUE
from fsslib.data.check import check, open_set
from fsslib.data.decode import DataError, read_image
from fsslib.data.images import LabelledImageSet
from fsslib.data.names import class_id
from fsslib.data.sets import LAYOUTS, open_images
from fsslib.episodes import VOID
from tests.data.trees import TREES, Tree

MASKS = ("magnetic_tile", "fss_1000", "deepglobe", "isic", "chest_xray", "kvasir")
LONELY = ("coco", "suim", "chest_xray")
"""Sets in which an image without a label map is no error."""

LISTED = ("pascal", "coco", "camvid")


@pytest.fixture(params=TREES)
def name(request) -> str:
    return request.param


@pytest.fixture
def tree(name, tmp_path, monkeypatch) -> Tree:
    monkeypatch.setattr("fsslib.data.cache.cache_root", lambda: tmp_path / "cache")
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    return TREES[name](tmp_path)


@pytest.fixture
def images(name, tree) -> LabelledImageSet:
    return open_images(name, size=32)


def published(name: str) -> bool:
    """Whether label maps are files of the release, which can be damaged."""
    return name != "coco"


def again(path, change) -> None:
    """Save an image file anew with its pixels changed, in its own mode."""
    with Image.open(path) as image:
        image.load()
        changed = change(image)
    changed.save(path)


def askable(images: LabelledImageSet) -> list[int]:
    """The classes that images of two groups and more show."""
    group_of = images._groups or {i: i for i in images.ids}
    return [c for c, shown in images.images_by_class.items() if len({group_of[i] for i in shown}) > 1]


def test_every_row_is_drawn_and_in_the_catalogue():
    assert TREES.keys() == {layout.name for layout in LAYOUTS.values()} - {"chest_xray_shenzhen", "synthia_lanes"}
    undrawn = {entry.name for entry in CATALOGUE.values() if entry.folder}
    assert undrawn == LAYOUTS.keys() - {"chest_xray_shenzhen", "synthia_lanes"}
    assert set(EPISODES) < LAYOUTS.keys()
    assert set(SPELLINGS.values()) < LAYOUTS.keys()


def test_images_are_named_and_classes_are_those_of_all_sets(name, tree, images):
    assert images.ids == tuple(sorted(tree.labels))
    assert images.name == name
    assert images.domain == ("photo" if name in ("pascal", "coco") else name)
    held = {int(c) for labels in tree.labels.values() for c in np.unique(labels)} - {0, VOID}
    assert held <= images.class_names.keys()
    assert all(class_id(title) == c for c, title in images.class_names.items())


def test_every_pixel_is_of_the_class_that_was_drawn(tree, images):
    for image_id, labels in tree.labels.items():
        image, found = images.original(image_id)
        assert torch.equal(image, read_image(tree.images[image_id]))
        assert found.dtype == torch.int64
        assert np.array_equal(found, labels), image_id


def test_what_an_image_shows_is_what_was_drawn(name, tree, images):
    for image_id, labels in tree.labels.items():
        shown = {int(c) for c in np.unique(labels)} - {0, VOID}
        # A crowd is held without a pixel of its own.
        crowd = {class_id("person")} if (name, image_id) == ("coco", "000000000004") else set()
        assert images.contents[image_id].held == shown | crowd
        assert images.contents[image_id].large == shown


def test_episodes_are_of_the_classes_and_their_supports_of_other_groups(images):
    classes = askable(images)
    assert len(classes) > 0
    for seed in range(4):
        rows = images.sample(classes, 2 * len(classes), seed=str(seed))
        for row in rows:
            group_of = images._groups or {i: i for i in images.ids}
            assert {group_of[i] for way in row.supports for i in way}.isdisjoint({group_of[row.query]})
        episode = images.episode(rows)
        assert episode.presence.all()
        assert (episode.support_masks == 1).flatten(3).any(-1).all()


def test_batches_number_the_classes_from_0(name, tree):
    images = open_images(name, size=(24, 32))
    assert list(images.class_names) == list(range(len(images.class_names)))
    batch = images.images(images.ids)
    assert batch.images.shape == (len(images), 3, 24, 32)
    for labels, found in zip(map(tree.labels.get, images.ids), batch.labels):
        names = {class_id(images.class_names[c]) for c in found.unique().tolist() if c != VOID}
        assert names == {int(c) for c in np.unique(labels)} - {0, VOID}


def test_capitals_and_what_lies_about_do_not_matter(name, tree, tmp_path):
    if name != "coco":  # whose JSON names the files
        for path in (*tree.images.values(), *(path for paths in tree.maps.values() for path in paths)):
            path.rename(path.with_suffix(path.suffix.upper()))
    for folder in {path.parent for path in tree.images.values()}:
        (folder / "Thumbs.db").write_bytes(b"\xd0\xcf")
        (folder / f"._{next(iter(tree.images.values())).name}").write_bytes(b"\x00\x05")
    assert open_images(name, size=32).ids == tuple(sorted(tree.labels))


def test_a_set_that_is_not_there_says_what_to_do(name, tree, tmp_path):
    with pytest.raises(DataError) as caught:
        open_images(name, root=tmp_path / "elsewhere")
    said = str(caught.value)
    assert said.startswith(f"{name} is not complete: there is no {tmp_path / 'elsewhere'}")
    assert "To get it" in said
    assert "FSSLIB_DATA" in said


def test_an_image_without_its_label_map_is_named(name, tree):
    if not published(name):
        return
    image_id, paths = next(iter(tree.maps.items()))
    for path in paths:
        path.unlink()
    if name in LONELY:
        assert image_id not in open_images(name, size=32).ids
        return
    with pytest.raises(DataError, match=rf"{image_id.rpartition('/')[2]}.*Unpack|not complete: there is no"):
        open_images(name, size=32)


def test_a_label_map_without_its_image_is_named(name, tree):
    image_id, path = next(iter(tree.images.items()))
    for copy in path.parents[2].glob(f"*/*/{path.name}") if name == "deepglobe" else [path]:
        copy.unlink()
    for copy in path.parents[3].rglob(path.name) if name == "deepglobe" else ():
        copy.unlink()
    with pytest.raises(DataError, match=rf"{path.stem.partition('_leftImg')[0]}.*(Unpack|restore)"):
        open_images(name, size=32)
    assert image_id in tree.labels


def test_a_label_map_of_another_size_is_named_with_both(name, tree):
    if not published(name):
        return
    path = next(iter(tree.maps.values()))[0]
    if name == "synthia":
        shutil.copy(tree.maps["0000001"][0], path)  # one row more
    else:
        again(path, lambda image: image.resize((70, 90), Image.Resampling.NEAREST))
    if name == "gta5":
        with pytest.warns(UserWarning, match="1 of 4 frames are left out.*00001"):
            assert open_images(name, size=32).ids == ("00002", "00003", "15188")
        return
    with pytest.raises(DataError, match=r"image is 6\d x \d\d pixels, its label map (70 x 90|64 x 49)"):
        open_images(name, size=32)


def test_a_number_without_a_class_is_named(name, tree):
    """In a mask, where no number can be one: a photograph in its place."""
    if not published(name):
        return
    path = next(iter(tree.maps.values()))[0]
    if name == "synthia":
        from tests.data.encoded import save_16_bit

        save_16_bit(path, np.full((48, 64), 23))
    elif name in MASKS or name == "suim":
        again(path, lambda image: Image.effect_noise(image.size, 60).convert(image.mode))
    else:
        again(path, lambda image: Image.new("L", image.size, 60))
    wanted = {"synthia": r"\[23\].*0 to 22", "suim": "restore the file"}.get(name, r"\[60\]")
    with pytest.raises(DataError, match=f"{path.name}.*({'picture' if name in MASKS else wanted})"):
        open_images(name, size=32)


def test_a_check_names_all_damage_and_counts_the_rest(name, tree, tmp_path):
    hurt = next(iter(tree.images.values())), list(tree.images.values())[-1]
    hurt[0].write_bytes(b"")
    hurt[1].write_bytes(hurt[1].read_bytes()[: hurt[1].stat().st_size // 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = check(*open_set(name), sheet=tmp_path / "sheet.png")
    assert len(report.damaged) == 2
    assert all(re.search(rf"\b{path.stem}\b", str(report)) for path in hurt)
    assert report.sizes.total() == len(tree.labels) - 2
    assert report.sheet.is_file()


def test_the_cache_holds_the_same_pixels(name, tree, images, tmp_path):
    cached = images.cached(tmp_path / "pixels")
    rows = images.sample(askable(images), 6)
    for mine, theirs in zip(vars(images.episode(rows)).values(), vars(cached.episode(rows)).values()):
        assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs
    for path in tree.images.values():
        path.write_bytes(b"")
    assert torch.equal(cached.episode(rows).query_images, images.episode(rows).query_images)


def test_an_unknown_set_or_part_lists_those_there_are(name, tree):
    with pytest.raises(DataError, match=rf"no data set '{name}s'; there are pascal, coco"):
        open_images(f"{name}s")
    with pytest.raises(DataError, match=rf"{name} has the parts (none|.*train|.*tr|.*TEST).*asked for 'trainn'"):
        open_images(name, part="trainn")
