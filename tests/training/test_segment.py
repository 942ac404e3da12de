"""From a folder of pictures to their masks: what is written, what is kept safe, what is said. About 5 s."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fsslib.blocks.backbones import WeightsRecord
from fsslib.cli import main
from fsslib.data.decode import DataError
from fsslib.data.toyworld import ToyWorld
from fsslib.episodes import Episode
from fsslib.methods import build_method
from fsslib.training import segment as module
from fsslib.training.segment import imagenet_weights, segment

CLASS = 1021
NAMES = [f"c{CLASS}-{number:06d}" for number in (1, 2, 3, 4)]
TOY = {"weights": "tiny-toy-fold4.pt", "size": 64}


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, tmp_path):
    """A machine without ImageNet weights."""
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def saved(values, path, **options):
    """A picture of pixels, or of floats [3, H, W] as the toy world draws them; what is true is white."""
    if isinstance(values, torch.Tensor):
        values = (255 * values).round().byte()
        values = (values.permute(1, 2, 0) if values.ndim == 3 else values).numpy()
    path.parent.mkdir(exist_ok=True)
    (values if isinstance(values, Image.Image) else Image.fromarray(np.asarray(values))).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    """Four pictures of the toy world with one class in each, the third on its side, and two masks in another folder."""
    images, class_map = ToyWorld("photo", distractors=()).images(NAMES)
    for number, (image, labels) in enumerate(zip(images, class_map)):
        with Image.open(saved(image, tmp_path / "toy.png")) as picture:
            picture = picture.resize((96, 80))
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 2 else 1
        picture = picture.transpose(Image.ROTATE_90) if number == 2 else picture
        saved(picture, tmp_path / "photos" / f"{number}.jpg", quality=95, exif=exif)
        mask = Image.fromarray(((labels == CLASS) * 255).byte().numpy()).resize((96, 80), Image.NEAREST)
        saved(mask, tmp_path / "drawn" / f"{number}_mask.png")
    (tmp_path / "toy.png").unlink()
    return tmp_path / "photos"


def pair(photos, number):
    return photos / f"{number}.jpg", photos.parent / "drawn" / f"{number}_mask.png"


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def overlap(mask, truth) -> float:
    mask, truth = pixels(mask) > 0, pixels(truth) > 0
    return (mask & truth).sum() / (mask | truth).sum()


def test_every_picture_gets_a_mask_of_its_own_size(photos, tmp_path):
    done = segment([pair(photos, 0)], photos, tmp_path / "out", **TOY)
    assert list(done.masks) == list(done.overlays) == ["1", "2", "3"]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    answers = {f"{n}_{what}.png" for n in "123" for what in ("mask", "overlay")}
    assert written == answers | {"contact_sheet.png", "masks_understood.png"}
    for path in done.masks.values():
        assert pixels(path).shape == (80, 96)
        assert set(np.unique(pixels(path))) <= {0, 255}
    assert pixels(done.sheet).shape[1] > 4 * 200
    # The picture that is stored on its side is answered upright.
    assert overlap(done.masks["2"], pair(photos, 2)[1]) > 0.3


def test_one_picture_is_checked_on_itself_and_more_on_each_other(photos, tmp_path):
    one = segment([pair(photos, 0)], photos, tmp_path / "out", **TOY)
    two = segment([pair(photos, 0), pair(photos, 1)], photos, tmp_path / "out2", **TOY)
    assert list(two.masks) == ["2", "3"]
    each = [segment([pair(photos, 1 - n)], photos, tmp_path / f"other{n}", **TOY).masks[str(n)] for n in (0, 1)]
    expected = [overlap(mask, pair(photos, n)[1]) for n, mask in enumerate(each)]
    assert two.overlap == pytest.approx(sum(expected) / 2)
    assert one.overlap != two.overlap
    assert any("its own mask is met" in note for note in one.notes)
    assert any("answered from the others alone" in note for note in two.notes)


def test_the_answer_is_that_of_the_episode(photos, tmp_path):
    """At the network's own size nothing is resized: the mask is what `predict` says."""
    images, class_map = ToyWorld("photo", distractors=()).images(NAMES[:2])
    mask = class_map[:1] == CLASS
    for number in (0, 1):
        saved(images[number], tmp_path / "small" / f"{number}.png")
    saved(mask[0].float(), tmp_path / "m.png")
    method = build_method("prototype", weights="tiny-toy-fold4.pt")
    supports = [(tmp_path / "small" / "0.png", tmp_path / "m.png")]
    done = segment(supports, tmp_path / "small", tmp_path / "out", method=method, size=64)
    assert method.training
    assert not any("Weights" in note for note in done.notes)

    rounded, labels = (255 * images).round() / 255, torch.zeros(1, 64, 64).long()
    episode = Episode(rounded[None, None, :1], mask[None, None].long(), rounded[1:], labels, torch.ones(1, 1).long())
    expected = method.eval().predict(episode).labels[0]
    assert np.array_equal(pixels(done.masks["1"]) > 0, expected.numpy() > 0)


def test_a_damaged_picture_is_named_and_the_others_are_done(photos, tmp_path):
    (photos / "1.jpg").write_bytes((photos / "1.jpg").read_bytes()[:900])
    done = segment([pair(photos, 0)], photos, tmp_path / "out", **TOY)
    assert list(done.masks) == ["2", "3"]
    assert list(done.damaged) == ["1"]
    assert "1.jpg cannot be read" in done.damaged["1"]
    for number in (2, 3):
        (photos / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"None of the pictures can be read\.\n.*1\.jpg"):
        segment([pair(photos, 0)], photos, tmp_path / "out", **TOY)


DOT = np.arange(80 * 96).reshape(80, 96) == 97
REFUSED = {
    "No support is given. Show at least one": lambda r: {"support": []},
    r"none\.png does not exist": lambda r: {"mask": r / "none.png"},
    r"empty\.png is empty\. Mark the object": lambda r: {"mask": saved(DOT & False, r / "empty.png")},
    "nothing of the object at 16 pixels.* Ask for a larger size": lambda r: {"mask": saved(DOT, r / "dot.png")},
    "alone holds only pictures of the support": lambda r: {"query": alone(r), "picture": alone(r) / "0.jpg"},
    "no does not exist": lambda r: {"query": r / "no"},
    "cannot be written.* or give another folder": lambda r: {"out": saved(DOT, r / "file.png")},
    "photos holds .* Give another folder, so that nothing is lost": lambda r: {"out": r / "photos"},
    "drawn holds .* Give another folder, so that nothing is lost": lambda r: {"out": r / "drawn"},
    r"which network mine\.pt belongs to": lambda r: {"weights": "mine.pt"},
}


def alone(root):
    (root / "alone").mkdir(exist_ok=True)
    (root / "alone" / "0.jpg").write_bytes((root / "photos" / "0.jpg").read_bytes())
    return root / "alone"


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_begun_is_said_in_words_and_writes_nothing(photos, tmp_path, said):
    picture, mask = pair(photos, 0)
    asked = {"picture": picture, "mask": mask, "query": photos, "out": tmp_path / "out"} | TOY | {"size": 16}
    asked |= REFUSED[said](tmp_path)
    picture, mask, query, out = (asked.pop(name) for name in ("picture", "mask", "query", "out"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(ValueError if "mine" in said else DataError, match=said):
        segment(asked.pop("support", [(picture, mask)]), query, out, **asked)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_weights_of_imagenet_are_used_when_they_are_there(photos, tmp_path, monkeypatch):
    assert imagenet_weights() is None
    toy = segment([pair(photos, 0)], photos, tmp_path / "out", size=32)
    text = " ".join(toy.notes)
    assert "tiny-toy-fold4.pt, from drawn shapes alone" in text
    assert "weights=imagenet fetches them once" in text

    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    resnet = build_method("prototype", backbone="resnet18", backbone_stages="layer2,layer3,layer4").backbone.network
    torch.save(resnet.state_dict(), folder / "resnet18-12345678.pth")
    (folder / "resnet50-12345678.pth").write_bytes(b"")
    assert imagenet_weights() == ("resnet18", folder / "resnet18-12345678.pth")
    done = segment([pair(photos, 0)], photos, tmp_path / "out", size=32)
    text = " ".join(done.notes)
    assert "resnet18-12345678.pth of resnet18" in text
    assert "Expect the region rather than the outline" in text

    monkeypatch.setattr(module, "MEASURED", "missing.json")
    assert not any("measured" in line for line in module._expectation("resnet18", WeightsRecord("resnet18.pth")))


def test_random_weights_are_named_so_and_give_the_same_masks_again(photos, tmp_path):
    state = torch.random.get_rng_state()
    first, second = (
        segment([pair(photos, 0)], photos, tmp_path / out, backbone="tiny", weights="none", size=32) for out in "ab"
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert any("Random features" in note for note in first.notes)
    assert first.masks["1"].read_bytes() == second.masks["1"].read_bytes()


def scene(folder, name, x, y, radius, side=512):
    """A red disc on green noise, and its mask."""
    rng = np.random.default_rng(x)
    rows, columns = np.mgrid[:side, :side]
    disc = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    pixels = (np.array([70, 130, 60]) + rng.normal(0, 12, (side, side, 3))).clip(0, 255).astype(np.uint8)
    pixels[disc] = (215, 40, 35)
    return saved(pixels, folder / f"{name}.png"), saved(disc, folder.parent / f"{name} drawn.png")


@pytest.mark.parametrize(("x", "radius"), [(256, 5), (3, 4), (256, 2), (120, 20)])
def test_a_small_object_is_found_by_its_own_features(tmp_path, x, radius):
    support = scene(tmp_path / "shown", "a", x, 250, radius)
    asked = [scene(tmp_path / "asked", name, *at, 40)[1] for name, at in (("b", (120, 130)), ("c", (300, 250)))]
    (tmp_path / "asked" / "again.png").write_bytes(support[0].read_bytes())
    done = segment([support], tmp_path / "asked", tmp_path / "out", weights="tiny-toy-fold4.pt")
    assert done.overlap == overlap(done.masks["again"], support[1]), "it is checked as others are asked, whole"
    assert all(overlap(done.masks[name], truth) > 0.7 for name, truth in zip("bc", asked))
    assert any("shown to the network from close by" in note for note in done.notes) == (radius < 20)


def test_an_object_that_fills_its_picture_is_shown_by_its_middle():
    """SciPy 1.17.1 by itself finds such an object deepest in the lower right (scipy-distance-without-background.sh)."""
    picture = torch.from_numpy(np.indices((200, 200, 1)).reshape(3, 200, 200).astype(np.uint8))
    (rows, columns, _), labels = module._from_close_by(picture, torch.ones(200, 200, dtype=torch.uint8), size=8)
    assert labels.shape == (80, 80)
    assert rows[:, 0].tolist() == columns[0].tolist() == list(range(59, 139))


def test_a_mask_of_the_support_is_no_picture(photos, tmp_path):
    picture, mask = pair(photos, 0)
    drawn = photos / "label.png"
    drawn.write_bytes(mask.read_bytes())
    done = segment([(picture, drawn)], photos, tmp_path / "out", **TOY)
    assert list(done.masks) == ["1", "2", "3"]
    assert any("they were shown: 0.jpg, label.png" in note for note in done.notes)


def test_masks_of_one_picture_are_one_support(photos, tmp_path):
    picture, mask = pair(photos, 0)
    marked, sides = pixels(mask), {"left": np.arange(96) < 48, "right": np.arange(96) >= 48}
    halves = [(picture, saved((marked * s).astype(np.uint8), tmp_path / f"{n}.png")) for n, s in sides.items()]
    joined = segment(halves, photos, tmp_path / "joined", **TOY)
    whole = segment([(picture, mask)], photos, tmp_path / "whole", **TOY)
    assert joined.overlap == whole.overlap
    assert joined.masks["1"].read_bytes() == whole.masks["1"].read_bytes()
    assert "2 masks of 0.jpg are joined: left.png, right.png." in joined.understood


def test_void_is_in_no_prototype_and_in_no_overlap(photos, tmp_path):
    picture, mask = pair(photos, 0)
    marked = pixels(mask) > 0
    rim = ~marked & (np.asarray(Image.fromarray(marked).filter(module.ImageFilter.MaxFilter(9))) > 0)
    void = saved(np.where(rim, 255, marked * 1).astype(np.uint8), tmp_path / "void.png")
    done = segment([(picture, void)], photos, tmp_path / "out", **TOY)
    assert done.overlap != segment([(picture, mask)], photos, tmp_path / "plain", **TOY).overlap
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "copy.jpg").write_bytes(picture.read_bytes())
    (answer,) = segment([(picture, void)], tmp_path / "copy", tmp_path / "self", **TOY).masks.values()
    known, answer = ~rim, pixels(answer) > 0
    expected = (answer & marked).sum() / ((answer & known) | marked).sum()
    assert done.overlap == pytest.approx(expected)


def test_how_masks_were_understood_is_said_and_drawn_before_the_work(photos, tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_answer", stop)
    picture, mask = pair(photos, 0)
    labels = np.where(pixels(mask) > 0, 15, np.arange(96) // 16 % 2 * 7).astype(np.uint8)
    saved(labels, tmp_path / "two.png")
    with pytest.raises(KeyboardInterrupt):
        segment([(picture, tmp_path / "two.png")], photos, tmp_path / "out", choose="15", progress=True, **TOY)
    assert "The object is what is 15 in two.png" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["masks_understood.png"]


def test_the_command_takes_one_class_and_says_first_what_it_understood(photos, tmp_path, capsys):
    picture, mask = pair(photos, 0)
    corners = [[0, 0], [20, 0], [20, 20], [0, 20]]
    shapes = [{"label": "corner", "points": corners}, {"label": "mug", "points": [[30, 30], [80, 30], [80, 70]]}]
    (tmp_path / "0.json").write_text(json.dumps({"shapes": shapes}))
    end = ["--query", str(photos), "--weights", "tiny-toy-fold4.pt", "--backbone", "tiny", "--size", "64"]
    shown = ["segment", "--support", str(picture), str(tmp_path / "0.json")]
    assert main([*shown, *end, "--out", str(tmp_path / "out"), "--class", "mug"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "The object is what is mug in 0.json (13.0% of the picture)."
    assert said.count(said[0]) == 1
    assert said[-1].startswith(f"3 masks and overlays in {tmp_path / 'out'}; look at ")
    assert main([*shown, *end, "--out", str(tmp_path / "out"), "--colour", "cup"]) == 2
    assert "0.json has no 'cup'; it has corner, mug." in capsys.readouterr().err
    for name in ("a, b", "[c]", 'it\'s "d"', "50%2C ü\\"):
        files = [tmp_path / f"{name}{kind}.png" for kind in ("", " mask")]
        files[0].write_bytes(picture.read_bytes())
        files[1].write_bytes(mask.read_bytes())
        assert main(["segment", "--support", *map(str, files), *end, "--out", str(tmp_path / "out")]) == 0
        assert f"{name} mask.png" in capsys.readouterr().out
    assert main(["segment", "--support", str(mask), str(picture), *end, "--out", str(tmp_path / "swapped")]) == 2
    assert "looks like a photograph" in capsys.readouterr().err
    assert not (tmp_path / "swapped").exists()
