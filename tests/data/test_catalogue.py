"""The catalogue: complete, and followed from archives to open data sets. 10 s."""

import hashlib
import re
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from fsslib.data import fetch, prepare
from fsslib.data.catalogue import CATALOGUE, Entry, find, get, next_step, report
from fsslib.data.fetch import Archive
from fsslib.data.sets import open_images
from fsslib.files import DataError
from tests.data.test_fetch import pack
from tests.data.test_prepare import DRAWN_TRAINAUG, draw_voc_and_sbd
from tests.data.trees import TREES, draw_coco

REAL = {entry.name: entry for entry in CATALOGUE.values() if entry.folder is not None}
ARCHIVES = [archive for entry in REAL.values() for archive in entry.archives]
COCO = {f"coco_{part}": partial(draw_coco, part=part) for part in ("val2017", "train2014", "val2014")}
DRAW = TREES | COCO | {"pascal": draw_voc_and_sbd}


def test_names_are_words_and_the_drawn_sets_come_first():
    assert list(CATALOGUE)[:2] == ["toy", "streets"]
    assert list(CATALOGUE)[2:] == list(REAL)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in CATALOGUE)


@pytest.mark.parametrize("entry", REAL.values(), ids=list(REAL))
def test_an_entry_is_complete(entry, tmp_path):
    for text in (entry.title, entry.about, entry.licence, entry.home, entry.papers):
        assert text == text.strip()
        assert len(text) > 2
        assert not text.endswith(".") or text.startswith("http")
    assert re.match(r"https?://[\w.]+", entry.home)
    assert bool(entry.archives) != bool(entry.steps), "either a program fetches it or steps say how"
    assert entry.gigabytes is None or not entry.archives, "the size is that of the archives"
    assert entry.files
    assert all(pattern.startswith(f"{entry.folder}/") for pattern in entry.files)
    assert entry.images is None or entry.images > 100
    assert re.fullmatch(r"size not known|\d+\.\d\d GB( and \d of unknown size)?", entry.size)
    if entry.finish:
        module, _, function = entry.finish.partition(":")
        assert callable(getattr(import_module(module), function))
    step = next_step(entry.name, tmp_path)
    assert step.startswith("To get it")
    assert str(tmp_path / entry.folder) in step
    assert f"Set FSSLIB_DATA to the folder that holds {entry.folder}." in step
    assert (f"fsslib data get {entry.name}." in step) == bool(entry.archives)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
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
    # Their names are those of files in one working folder.
    assert {repr(replace(other, places={})) for other in ARCHIVES if other.name == archive.name} == {
        repr(replace(archive, places={}))
    }


def test_an_address_of_a_folder_gets_the_archives_name():
    urls = ("https://a.org/folder/", "https://b.org/get?id=1", "https://c.org/x.zip")
    assert Archive("x.zip", urls, {}).addresses == ["https://a.org/folder/x.zip", *urls[1:]]
    assert not any(url.endswith("/") for archive in ARCHIVES for url in archive.addresses)


def test_what_is_there_is_counted_and_a_file_that_is_missing_named(tmp_path):
    for draw in (TREES | COCO).values():
        draw(tmp_path)
    lines = report(tmp_path).splitlines()
    assert lines[0].startswith(f"Data sets below {tmp_path} (")
    found = {line.split()[0] for line in lines[1:] if line.split()[1] == "found:"}
    assert found == CATALOGUE.keys(), "\n".join(lines)
    (tmp_path / "CamVid" / "annot").mkdir()
    (tmp_path / "CamVid" / "annot" / ".hidden.png").touch()
    assert find(CATALOGUE["camvid"], tmp_path) == "11 files CamVid/*annot/*.png"
    (tmp_path / "CamVid" / "train.txt").unlink()
    with pytest.raises(DataError, match=r"there is no .*CamVid.train\.txt"):
        find(CATALOGUE["camvid"], tmp_path)


def test_what_is_missing_is_told_with_size_licence_and_next_step(tmp_path):
    text = report(tmp_path)
    assert len(re.findall(r"^  \w+ +missing: there is no /", text, re.MULTILINE)) == len(REAL)
    for entry in REAL.values():
        (block,) = re.findall(rf"^  {entry.name} +missing.*(?:\n {{17}}.*)+", text, re.MULTILINE)
        assert f"{entry.title}, {entry.about}\n" in block
        assert f" {entry.size}; licence: {entry.licence}\n" in block
        assert (f"fsslib data get {entry.name}" in block) == bool(entry.archives)
        assert "To get it" in block
        assert ("log in there" in block) == (entry.name == "cityscapes")


# From archives to open data sets


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No address is asked: what a test puts into the dictionary by an archive's name is what comes."""
    contents: dict[str, bytes] = {}
    monkeypatch.setattr(fetch, "_stream", lambda url, part, archive: part.write_bytes(contents[archive.name]))
    monkeypatch.setattr(prepare, "TRAINAUG", DRAWN_TRAINAUG)
    monkeypatch.setattr("fsslib.data.cache.cache_root", lambda: tmp_path / "cache")
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
        content = contents[archive.name] = pack(archive.name, files | {"somewhere/README": b"beside what is kept"})
        kind = (archive.checksum or "").partition(":")[0]
        checksum = f"{kind}:{hashlib.new(kind, content).hexdigest()}" if kind else None
        archives.append(replace(archive, checksum=checksum, size=archive.size and len(content), about_gb=None))
    return replace(entry, archives=tuple(archives))


@pytest.mark.parametrize("name", [name for name, entry in REAL.items() if entry.archives])
def test_archives_become_a_data_set_that_opens(tmp_path, monkeypatch, capsys, offline, name):
    DRAW[name](tmp_path / "drawn")
    monkeypatch.setitem(CATALOGUE, name, packed(CATALOGUE[name], tmp_path / "drawn", offline))
    root = tmp_path / "data"
    get(name, root=root)
    said = capsys.readouterr().out
    assert f"licence: {CATALOGUE[name].licence}\n" in said
    assert said.splitlines()[-1] == f"{name}: {find(CATALOGUE[name], root)}"
    assert not (root / "somewhere").exists()
    assert len(open_images(name, root=root, size=32)) > 3
    get({"fss_1000": "fss1000"}.get(name, name), root=root)
    assert capsys.readouterr().out == f"{name}: {find(CATALOGUE[name], root)}\n"


def test_a_folder_that_lacks_something_is_not_touched(tmp_path, monkeypatch, offline):
    TREES["kvasir"](tmp_path / "drawn")
    entry = packed(CATALOGUE["kvasir"], tmp_path / "drawn", offline)
    monkeypatch.setitem(CATALOGUE, "kvasir", replace(entry, files=(*entry.files[:1], "Kvasir-SEG/boxes.json")))
    (tmp_path / "Kvasir-SEG" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match=r"Kvasir-SEG is not whole: there is no .*boxes\.json.*left as it is: move"):
        get("kvasir", root=tmp_path)
    assert list((tmp_path / "Kvasir-SEG" / "images").iterdir()) == []


def test_when_no_address_gives_an_archive_the_home_page_is_named(tmp_path, monkeypatch, offline):
    TREES["kvasir"](tmp_path / "drawn")
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
    looks = "scenes of 25 invented classes in photo, underwater, night and sketch looks"
    assert capsys.readouterr().out == f"toy: drawn by the program, {looks}\n"
    TREES["kvasir"](tmp_path)
    get("kvasir")
    assert capsys.readouterr().out == "kvasir: 4 files Kvasir-SEG/masks/*.jpg\n"
    with pytest.raises(DataError, match=r"There is no data set 'voc'\. There are: toy, streets, pascal, coco"):
        get("voc")
