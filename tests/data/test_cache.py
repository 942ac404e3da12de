"""What was decoded once serves as long as the files are those of then, and is whole or not there."""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from fsslib.data import cache
from fsslib.data.cache import array_cache
from fsslib.data.sets import open_images
from fsslib.files import DataError
from fsslib.protocols import protocol_named
from tests.data.trees import TREES

SIZE = (4, 6)
ARRAYS = {"images": (np.uint8, (3, *SIZE)), "labels": (np.int16, SIZE)}


@pytest.fixture
def files(tmp_path) -> dict[str, tuple[Path, ...]]:
    found = {str(number): (tmp_path / "files" / f"{number}.txt",) for number in range(5)}
    (tmp_path / "files").mkdir()
    for number, (path,) in found.items():
        path.write_text(number)
    return found


class Prepare:
    """Images of one value, that of the file, with labels that need two bytes; notes which are asked for."""

    def __init__(self, files):
        self.files, self.calls = files, []

    def __call__(self, image_id):
        self.calls.append(image_id)
        value = int(self.files[image_id][0].read_text())
        return torch.full((3, *SIZE), value, dtype=torch.uint8), torch.full(SIZE, 1000 + value, dtype=torch.int16)


def build(files, root, prepare=None, **more):
    prepare = prepare or Prepare(files)
    return array_cache("numbers", files, prepare, ARRAYS, root=root / "cache", **more), prepare


def test_every_image_is_prepared_once_and_comes_back_as_a_copy_of_what_it_was(files, tmp_path, capsys):
    first, prepare = build(files, tmp_path)
    assert sorted(prepare.calls) == list(files)
    assert f"5 images are decoded once, to {first.folder} (0.0 MB)" in capsys.readouterr().out
    first["3"][0].zero_()
    again, later = build(files, tmp_path)
    assert later.calls == []
    assert capsys.readouterr().out == ""
    for image_id in files:
        image, labels = again[image_id]
        assert torch.equal(image, torch.full((3, *SIZE), int(image_id), dtype=torch.uint8))
        assert torch.equal(labels, torch.full(SIZE, 1000 + int(image_id), dtype=torch.int16))


def set_back(path: Path) -> None:
    """Another content of the same length, with the time of the last change of before."""
    times = path.stat()
    path.write_text("2")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def cut_short(name: str):
    def damage(files, folder, monkeypatch):
        (folder / name).write_bytes((folder / name).read_bytes()[:20])

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda files, folder, monkeypatch: os.utime(files["2"][0], ns=(1, 1)),
        lambda files, folder, monkeypatch: set_back(files["2"][0]),
        lambda files, folder, monkeypatch: monkeypatch.setattr(cache, "RULE", 5),
        lambda files, folder, monkeypatch: (folder / "manifest.json").unlink(),
        cut_short("manifest.json"),
        cut_short("images.npy"),
        cut_short("labels.npy"),
    ],
    ids=["touched", "set back", "rule", "no manifest", "manifest", "images", "labels"],
)
def test_files_that_are_not_those_of_then_and_entries_that_are_not_whole(files, tmp_path, monkeypatch, damage):
    files["2"][0].write_text("7")
    found, _ = build(files, tmp_path)
    damage(files, found.folder, monkeypatch)
    found, prepare = build(files, tmp_path)
    assert sorted(prepare.calls) == list(files)
    assert (found["2"][0] == int(files["2"][0].read_text())).all()
    assert build(files, tmp_path)[1].calls == []


def test_a_file_that_changes_while_it_is_read_is_read_again(files, tmp_path):
    def prepare(image_id):
        made = Prepare(files)(image_id)
        if image_id == "4":
            files["4"][0].write_text("9")
        return made

    build(files, tmp_path, prepare)
    assert (build(files, tmp_path)[0]["4"][0] == 9).all()


def test_other_ids_and_meanings_have_entries_of_their_own(files, tmp_path):
    everything, _ = build(files, tmp_path)
    some, prepare = build({i: files[i] for i in ("0", "3")}, tmp_path)
    assert prepare.calls == ["0", "3"]
    assert (some["3"][0] == 3).all()
    with pytest.raises(KeyError):
        some["1"]
    other, prepare = build(files, tmp_path, about="other classes")
    assert sorted(prepare.calls) == list(files)
    assert len({everything.folder, some.folder, other.folder}) == 3


def test_a_disk_without_room_is_said_and_nothing_is_written(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 500, 500))
    assert build(files, tmp_path)[0] is None
    assert "do not fit" in capsys.readouterr().out
    assert list((tmp_path / "cache").iterdir()) == []


def test_as_many_threads_decode_as_cores_may_be_used(files, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cache, "ThreadPoolExecutor", lambda count: asked.append(count) or ThreadPoolExecutor(count))
    monkeypatch.setattr(cache.os, "sched_getaffinity", lambda process: {4, 7, 9}, raising=False)
    build(files, tmp_path)
    monkeypatch.delattr(cache.os, "sched_getaffinity")
    monkeypatch.setattr(cache.os, "cpu_count", lambda: 5)
    build(files, tmp_path / "another")
    assert asked == [3, 5]


def test_kill_9_in_the_middle_leaves_nothing_that_is_taken_for_whole(files, tmp_path):
    program = f"""
import os, signal, torch
from pathlib import Path
from fsslib.data.cache import array_cache
files = {{str(n): (Path({str(tmp_path)!r}) / "files" / f"{{n}}.txt",) for n in range(5)}}
def prepare(image_id):
    if image_id == "3":
        os.kill(os.getpid(), signal.SIGKILL)
    return torch.full((3, 4, 6), 50, dtype=torch.uint8), torch.zeros(4, 6, dtype=torch.int16)
kinds = {{"images": ("uint8", (3, 4, 6)), "labels": ("int16", (4, 6))}}
array_cache("numbers", files, prepare, kinds, root=Path({str(tmp_path)!r}) / "cache")
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert {path.name[0] for path in (tmp_path / "cache").iterdir() if path.is_dir()} == {"."}
    found, prepare = build(files, tmp_path)
    assert sorted(prepare.calls) == list(files)
    assert (found["0"][0] == 0).all()
    assert not any(path.name[0] == "." for path in (tmp_path / "cache").iterdir())


def test_a_scan_is_remembered_for_files_that_stay_as_they_are(files, tmp_path, monkeypatch):
    calls = []

    def work(image_id):
        calls.append(image_id)
        return [int(files[image_id][0].read_text())]

    def scan():
        calls.clear()
        return cache.remembered("numbers", files, work, root=tmp_path / "cache")

    assert scan() == scan() == {str(n): [n] for n in range(5)}
    assert len(calls) == 5, "a small set is scanned each time"
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(cache, "FEWEST", 2)
    assert scan() == scan()
    assert calls == []
    files["2"][0].write_text("7")
    assert scan()["2"] == [7]
    assert calls == ["2"]
    (path,) = (tmp_path / "cache").glob("*.json")
    path.write_text(path.read_text()[:50])
    assert scan()["2"] == [7]
    assert len(calls) == 5


def test_a_set_over_a_cache_decodes_only_what_its_protocol_asks_for(tmp_path, monkeypatch):
    tree = TREES["pascal"](tmp_path)
    plain = open_images("pascal", root=tmp_path, size=32)
    path = tree.images[plain.ids[0]]
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(DataError, match=path.name):
        plain.cached(tmp_path / "cache")
    path.write_bytes(whole)
    cached = plain.cached(tmp_path / "cache")
    (c, *_) = plain.usable_classes(minimum_images=2)
    rows = plain.sample([c], 3)

    seen = cached.under(protocol_named("original"))
    for row, original in zip(rows, seen.episode(rows).query_originals):
        assert torch.equal(original == 1, plain.original(row.query)[1] == c)
    monkeypatch.setattr(cached, "load", lambda image_id: pytest.fail(f"{image_id} was decoded"))
    found = cached.restricted({i for row in rows for i in (row.query, *row.supports[0])}).episode(rows)
    for part in (seen.episode(rows), plain.episode(rows)):
        assert torch.equal(found.query_images, part.query_images)
        assert torch.equal(found.query_labels, part.query_labels)
    assert found.query_originals is None
