"""The catalogue: complete, consistent with the readers, and followed from archives to open data sets. 10 s."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from fsslib.data import catalogue, fetch, sbd
from fsslib.data.camvid import camvid
from fsslib.data.catalogue import CATALOGUE, find, get, report
from fsslib.data.fss1000 import Fss1000
from fsslib.data.gta5 import gta5
from fsslib.data.images import DataError
from fsslib.data.magnetic_tile import MagneticTile
from fsslib.data.medical import ChestXray, Isic, Kvasir
from fsslib.data.pascal import PascalVOC
from fsslib.data.sources import ENTRIES, Entry
from tests.data.camvid_fixture import draw_camvid
from tests.data.street_fixture import draw_cityscapes, draw_gta5, draw_synthia
from tests.data.test_fetch import make_tar, make_zip
from tests.data.test_magnetic_tile import draw_tiles
from tests.data.test_masks import TABLE, add_lesion, add_pair, fss_files
from tests.data.test_sbd import DRAWN_TRAINAUG, draw_voc_and_sbd
from tests.data.test_suim import add_scene

DRAWN = [entry for entry in ENTRIES if entry.folder is None]
REAL = [entry for entry in ENTRIES if entry.folder is not None]
ARCHIVES = [archive for entry in REAL for archive in entry.archives]


def name_of(value: object) -> str:
    return value.name


@pytest.fixture(autouse=True)
def little_trainaug(monkeypatch):
    monkeypatch.setattr(sbd, "TRAINAUG", DRAWN_TRAINAUG)


# The entries


def test_names_are_unique_and_the_drawn_ones_first():
    assert len(CATALOGUE) == len(ENTRIES)
    assert [entry.name for entry in DRAWN] == ["toy", "streets"]
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in CATALOGUE)


@pytest.mark.parametrize("entry", REAL, ids=name_of)
def test_an_entry_is_complete(entry):
    for text in (entry.title, entry.about, entry.licence, entry.home, entry.papers):
        assert text == text.strip()
        assert len(text) > 2
        assert not text.endswith(".") or text.startswith("http")
    assert re.match(r"https?://[\w.]+", entry.home)
    assert bool(entry.archives) != bool(entry.steps), "either a program fetches it or steps say how"
    assert entry.gigabytes is None or not entry.archives, "the size is that of the archives"
    assert all(pattern.startswith(f"{entry.folder}/") for pattern in entry.files)
    assert re.fullmatch(r"size not known|\d+\.\d\d GB( and \d of unknown size)?", entry.size)
    if entry.finish:
        assert callable(catalogue._resolve(entry.finish))


@pytest.mark.parametrize("archive", ARCHIVES, ids=name_of)
def test_an_archive_can_be_fetched_safely(archive):
    assert archive.name.endswith((".zip", ".tar", ".tgz"))
    assert len(set(archive.urls)) == len(archive.urls) > 0
    for url in archive.urls:
        assert url.startswith("https://") or (archive.checksum and url.startswith("http://"))
    assert archive.checksum is None or re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", archive.checksum)
    assert archive.size is None or archive.size > 10**6
    assert archive.source or archive.gigabytes is archive.checksum is None, "who publishes what is said of it?"
    for kept, place in archive.places.items():
        assert not {"", ".", ".."} & {*kept.split("/"), *place.split("/")}


def test_archives_of_one_name_are_one_archive():
    """Their names are those of files in one working folder."""
    by_name = {archive.name: archive for archive in ARCHIVES}
    assert all(replace(archive, places={}) == replace(by_name[archive.name], places={}) for archive in ARCHIVES)


def test_steps_name_the_folder(tmp_path):
    for entry in REAL:
        if entry.steps:
            text = catalogue._by_hand(entry, tmp_path)
            assert str(tmp_path / entry.folder) in text
            assert "Set FSSLIB_DATA" in text


# What is there


def draw_others(root: Path) -> None:
    draw_cityscapes(root)
    draw_synthia(root)
    add_scene(root, "one")
    crops = root / "Deepglobe" / "1" / "test"
    add_pair(crops / "origin" / "119_sat_00.jpg", crops / "groundtruth" / "119_sat_00.png")


def draw_kvasir(root: Path) -> None:
    add_pair(*(root / "Kvasir-SEG" / part / "cju0.jpg" for part in ("images", "masks")), mode="RGB")


def draw_chest(root: Path) -> None:
    folder = root / "LungSegmentation"
    add_pair(folder / "CXR_png" / "CHNCXR_0001_0.png", folder / "masks" / "CHNCXR_0001_0_mask.png", image_mode="L")


def draw_isic(root: Path) -> None:
    add_lesion(root, "ISIC_0000000")
    (root / "ISIC" / "class_id.csv").write_bytes(TABLE.encode())


def draw_fss(root: Path) -> None:
    add_pair(*fss_files(root, "taxi/1"))


def draw_all(root: Path) -> None:
    for draw in (draw_others, draw_voc_and_sbd, draw_camvid, draw_tiles, draw_gta5, draw_kvasir, draw_chest, draw_isic):
        draw(root)
    draw_fss(root)
    sbd.merge(root)
    for entry in REAL:
        if entry.folder == "coco":
            images, json = entry.files
            for path in (root / images.replace("*", "one"), root / json):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


def test_every_set_in_its_layout_is_found(tmp_path):
    draw_all(tmp_path)
    lines = report(tmp_path).splitlines()
    assert lines[0].startswith(f"Data sets below {tmp_path} (")
    assert [line.split()[:2] for line in lines[1:]] == [[name, "found:"] for name in CATALOGUE]
    assert find(CATALOGUE["pascal"], tmp_path) == "85 files VOCdevkit/VOC2012/SegmentationClassAug/*.png"


def test_what_is_missing_is_told_with_size_licence_and_next_step(tmp_path):
    text = report(tmp_path)
    assert len(re.findall(r"^  \w+ +missing: there is no /", text, re.MULTILINE)) == len(REAL)
    for entry in REAL:
        (block,) = re.findall(rf"^  {entry.name} +missing.*(?:\n {{17}}.*)+", text, re.MULTILINE)
        assert f"{entry.title}, {entry.about}\n" in block
        assert f" {entry.size}; licence: {entry.licence}\n" in block
        assert (f"fsslib data get {entry.name}" in block) == bool(entry.archives)
        assert "To get it" in block
        assert ("log in there" in block) == (entry.name == "cityscapes")


def test_one_file_that_is_missing_is_named(tmp_path):
    draw_all(tmp_path)
    (tmp_path / "CamVid" / "train.txt").unlink()
    with pytest.raises(DataError, match=r"there is no .*CamVid.train\.txt"):
        find(CATALOGUE["camvid"], tmp_path)


# From archives to open data sets


@pytest.fixture
def offline(monkeypatch):
    """No address is asked: what a test puts into the dictionary by an archive's name is what comes."""
    contents: dict[str, bytes] = {}
    monkeypatch.setattr(fetch, "_stream", lambda url, part, archive: part.write_bytes(contents[archive.name]))
    return contents


def packed(entry: Entry, drawn: Path, contents: dict[str, bytes]) -> Entry:
    """The entry with archives that hold what is drawn in its layout, each archive its share of a place of several."""
    archives = []
    for archive in entry.archives:
        files = {}
        for kept, place in archive.places.items():
            sharing = [other.name for other in entry.archives if place in other.places.values()]
            base = drawn / place
            paths = [base] if base.is_file() else sorted(path for path in base.rglob("*") if path.is_file())
            share = paths[sharing.index(archive.name) :: len(sharing)] or paths[:1]
            files |= {kept + path.as_posix().removeprefix(base.as_posix()): path.read_bytes() for path in share}
        files["somewhere/README"] = b"beside what is kept"
        content = (
            make_zip(files)
            if archive.name.endswith(".zip")
            else make_tar(files, mode="w:" + "gz" * (archive.name[-1] == "z"))
        )
        contents[archive.name] = content
        checksum = archive.checksum and re.sub(":.*", "", archive.checksum)
        checksum = checksum and f"{checksum}:{hashlib.new(checksum, content).hexdigest()}"
        archives.append(replace(archive, checksum=checksum, size=archive.size and len(content), about_gb=None))
    return replace(entry, archives=tuple(archives))


@pytest.mark.parametrize(
    ("name", "draw", "read", "images"),
    [
        ("pascal", draw_voc_and_sbd, PascalVOC, 85),
        ("fss1000", draw_fss, Fss1000, 1),
        ("isic", draw_isic, Isic, 1),
        ("chest_xray", draw_chest, ChestXray, 1),
        ("kvasir", draw_kvasir, Kvasir, 1),
        ("magnetic_tile", draw_tiles, MagneticTile, 30),
        ("camvid", draw_camvid, camvid, None),
        ("gta5", draw_gta5, gta5, None),
    ],
)
def test_archives_become_a_data_set_that_its_reader_opens(
    tmp_path, monkeypatch, capsys, offline, name, draw, read, images
):
    draw(tmp_path / "drawn")
    monkeypatch.setitem(CATALOGUE, name, packed(CATALOGUE[name], tmp_path / "drawn", offline))
    root = tmp_path / "data"
    get(name, root=root)
    said = capsys.readouterr().out
    assert f"licence: {CATALOGUE[name].licence}\n" in said
    assert said.splitlines()[-1] == f"{name}: {find(CATALOGUE[name], root)}"
    assert not (root / "somewhere").exists()
    data = read(root)
    assert len(data.ids) == (images or len(data.ids)) > 0

    get(name, root=root)
    assert capsys.readouterr().out == f"{name}: {find(CATALOGUE[name], root)}\n"


def test_a_folder_that_lacks_something_is_not_touched(tmp_path, monkeypatch, offline):
    draw_kvasir(tmp_path / "drawn")
    entry = replace(
        packed(CATALOGUE["kvasir"], tmp_path / "drawn", offline),
        files=("Kvasir-SEG/masks/*.jpg", "Kvasir-SEG/bounding_boxes.json"),
    )
    monkeypatch.setitem(CATALOGUE, "kvasir", entry)
    (tmp_path / "Kvasir-SEG" / "images").mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"Kvasir-SEG is not whole: there is no .*bounding_boxes\.json.*left as it is: move"
    ):
        get("kvasir", root=tmp_path)
    assert list((tmp_path / "Kvasir-SEG" / "images").iterdir()) == []


def test_when_no_address_gives_an_archive_the_home_page_is_named(tmp_path, monkeypatch, offline):
    draw_kvasir(tmp_path / "drawn")
    monkeypatch.setitem(CATALOGUE, "kvasir", packed(CATALOGUE["kvasir"], tmp_path / "drawn", offline))
    offline["kvasir-seg.zip"] = b"another"
    with pytest.raises(DataError, match=r"could not be fetched(?s:.*)by hand, see https://datasets\.simula\.no"):
        get("kvasir", root=tmp_path)


def test_a_set_that_asks_for_a_login_comes_with_its_steps(tmp_path):
    with pytest.raises(DataError) as error:
        get("cityscapes", root=tmp_path)
    assert "its site does not let a program fetch it. Its licence: non-commercial use" in str(error.value)
    assert "register at www.cityscapes-dataset.com" in str(error.value)
    assert f"unpack\nboth into {tmp_path / 'Cityscapes'}" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_data_folder_is_the_usual_one_and_drawn_sets_need_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    get("toy")
    assert (
        capsys.readouterr().out
        == "toy: drawn by the program, scenes of 25 invented classes in photo, underwater, night and sketch looks\n"
    )
    draw_kvasir(tmp_path)
    get("kvasir")
    assert capsys.readouterr().out == "kvasir: 1 files Kvasir-SEG/masks/*.jpg\n"
    with pytest.raises(DataError, match=r"There is no data set 'voc'\. There are: toy, streets, pascal, coco"):
        get("voc")
