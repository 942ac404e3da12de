"""The source of street images: right pixels in right places, decoded once, errors that name the image. About 4 s."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.data import driving
from fsslib.data.decode import DataError, resize_image, resize_labels
from fsslib.data.driving import DrivingImages
from fsslib.episodes import VOID, SegmentationSource

NAMES = {0: "road", 1: "car", 2: "sky"}


class Files:
    """Stands for a reader's `load`: makes each image from its id, and keeps the ids it was asked for."""

    def __init__(self, height: int = 30, width: int = 50):
        self.size, self.loaded = (height, width), []

    def labels(self, image_id: str) -> torch.Tensor:
        if image_id == "void":
            return torch.full(self.size, VOID, dtype=torch.uint8)
        generator = torch.Generator().manual_seed(int(image_id))
        blocks = torch.randint(0, 4, (3, 5), generator=generator)
        blocks[blocks == 3] = VOID
        return blocks.repeat_interleave(self.size[0] // 3, 0).repeat_interleave(self.size[1] // 5, 1).to(torch.uint8)

    def __call__(self, image_id: str) -> tuple[torch.Tensor, torch.Tensor]:
        self.loaded.append(image_id)
        labels = self.labels(image_id)
        return torch.stack([labels // 2, labels, 255 - labels]), labels


def source_of(files=None, ids=("3", "1", "2", "2", "void"), size=(12, 20), **options) -> DrivingImages:
    return DrivingImages(ids, files or Files(), NAMES, **{"name": "toy", "domain": "day", "size": size} | options)


def test_it_is_a_segmentation_source():
    source = source_of()
    assert isinstance(source, SegmentationSource)
    assert source.ids == ("1", "2", "3", "void")
    assert len(source) == 4
    batch = source.images(["3", "1", "3"])
    assert batch.images.shape == (3, 3, 12, 20)
    assert batch.labels.shape == (3, 12, 20)
    assert batch.images.dtype == torch.float32
    assert batch.labels.dtype == torch.int64
    assert batch.domain == "day"
    assert len(batch) == 3
    assert torch.equal(batch.labels[0], batch.labels[2])
    assert not torch.equal(batch.labels[0], batch.labels[1])


def test_images_and_labels_hold_the_right_pixels():
    files = Files()
    batch = source_of(files, size=(30, 50)).images(["2", "1", "void"])
    for row, image_id in enumerate(("2", "1", "void")):
        image, labels = files(image_id)
        assert torch.equal(batch.labels[row], labels.long())
        torch.testing.assert_close(batch.images[row], image / 255)


def test_an_image_of_nothing_but_void_is_served():
    assert source_of().images(["void"]).labels.unique().tolist() == [VOID]


@pytest.mark.parametrize(("down", "across"), [(3, 5), (5, 1), (1, 7), (9, 3)])
def test_the_resize_takes_the_label_at_each_pixels_centre(down, across):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 19, (down * 8, across * 6), generator=generator, dtype=torch.uint8)
    small = resize_labels(labels, (8, 6))
    assert torch.equal(small, labels[down // 2 :: down, across // 2 :: across])


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(20, 90),
    width=st.integers(20, 90),
    size=st.tuples(st.integers(12, 60), st.integers(12, 60)),
    seed=st.integers(0, 1000),
)
def test_labels_stay_on_their_images_at_any_aspect_ratio(height, width, size, seed):
    rng = np.random.default_rng(seed)
    top, left = rng.integers(0, height // 3), rng.integers(0, width // 3)
    labels = torch.zeros(height, width, dtype=torch.uint8)
    labels[top : top + height // 2, left : left + width // 2] = 9
    image = ((labels == 9) * 200).to(torch.uint8).expand(3, -1, -1).contiguous()
    picture, small = resize_image(image, size), resize_labels(labels, size)
    assert picture.shape == (3, *size)
    assert small.shape == size
    assert set(small.unique().tolist()) == {0, 9}
    assert (small == 9)[picture[0] > 190].all()
    assert not (small == 9)[picture[0] < 10].any()
    for axis in (0, 1):
        at = torch.arange(size[1 - axis], dtype=torch.float64)
        centres = [(w.double().sum(axis) * at).sum() / w.double().sum() for w in (small == 9, picture[0])]
        assert abs(centres[0] - centres[1]) <= 0.51


def test_images_are_decoded_once_and_shared_with_subsets(monkeypatch):
    files = Files()
    source = source_of(files)
    part = source.restricted(["1", "3"])
    first = source.images(["1", "2"])
    again = part.images(["1", "3"])
    source.images(source.ids)
    assert sorted(files.loaded) == ["1", "2", "3", "void"]
    assert torch.equal(first.images[0], again.images[0])
    image, labels = source._cache["1"]
    assert image.dtype == labels.dtype == torch.uint8

    # Room for two: the rest is decoded at each call and is the same.
    monkeypatch.setattr(driving, "CACHE_BYTES", 2 * 4 * 12 * 20)
    tight = source_of(Files())
    for _ in range(2):
        assert torch.equal(tight.images(["3", "1", "2"]).images, source.images(["3", "1", "2"]).images)
    assert len(tight._cache) == 2


def test_a_subset_knows_only_its_images():
    source = source_of()
    part = source.restricted(["3", "1"], domain="dusk")
    assert (part.ids, part.domain, part.name) == (("1", "3"), "dusk", "toy")
    assert part.images(["1"]).domain == "dusk"
    assert (len(source), source.domain) == (4, "day")
    assert source.restricted(["1"]).domain == "day"
    with pytest.raises(DataError, match=r"1 of these images are not among the 2 of toy \(dusk\).*'2'"):
        part.images(["1", "2"])
    with pytest.raises(DataError, match=r"first is 'nowhere'"):
        source.restricted(["1", "nowhere"])
    with pytest.raises(DataError, match=r"toy \(day\) is left without an image"):
        source.restricted([])


def test_class_shares_agree_with_numpy():
    files = Files()
    shares = source_of(files, size=(30, 50)).class_shares()
    pixels = np.concatenate([files.labels(i).numpy().ravel() for i in ("1", "2", "3", "void")])
    pixels = pixels[pixels != VOID]
    assert shares == pytest.approx({c: (pixels == c).mean() for c in NAMES})
    assert sum(shares.values()) == pytest.approx(1)
    with pytest.raises(DataError, match=r"The 1 images of toy \(day\) have no labelled pixel"):
        source_of(ids=["void"]).class_shares()


def test_a_class_that_no_image_shows_has_share_zero():
    source = DrivingImages(["1"], Files(), {**NAMES, 3: "train"}, name="toy", domain="day", size=(12, 20))
    assert source.class_shares()[3] == 0


def test_what_load_gives_is_checked():
    image, labels = Files()("1")
    wrong_size = source_of(lambda _: (image, labels[:, :40]))
    with pytest.raises(DataError, match=r"1: the image is 50 x 30 pixels, its label map 40 x 30"):
        wrong_size.images(["1"])
    strange = labels.clone()
    strange[0, :2] = torch.tensor([3, 254])
    with pytest.raises(DataError, match=r"1: the label map of toy holds the values \[3, 254\].* 0 to 2, and 255"):
        source_of(lambda _: (image, strange)).images(["1"])


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"toy: classes are numbered 0 \.\. C-1; found \[1, 2\]"):
        DrivingImages(["1"], Files(), {1: "a", 2: "b"}, name="toy", domain="day", size=(8, 8))
    with pytest.raises(DataError, match=r"toy \(day\) is left without an image"):
        source_of(ids=[])
    with pytest.raises(ValueError, match="at least one image; none of toy"):
        source_of().images([])
