"""What was decoded once serves as long as the files' content is the same, and is whole or not there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from fsslib.data import cache
from fsslib.data.cache import pixel_cache
from fsslib.data.images import DataError
from fsslib.data.joined import joined
from fsslib.data.pascal import PascalVOC
from fsslib.files import make_once
from fsslib.metrics import PROTOCOLS
from tests.data.voc_fixture import add_image, add_list

SIZE = (4, 6)


@pytest.fixture
def files(tmp_path) -> dict[str, tuple[Path, ...]]:
    found = {}
    for number in range(5):
        path = tmp_path / "files" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(number))
        found[str(number)] = (path,)
    return found


class Prepare:
    """Images of one value, that of the file; counts how often it is called."""

    def __init__(self, files):
        self.files, self.calls = files, []

    def __call__(self, image_id):
        self.calls.append(image_id)
        value = int(self.files[image_id][0].read_text())
        return torch.full((3, *SIZE), value, dtype=torch.uint8), torch.full(SIZE, 100 + value, dtype=torch.uint8)


def build(files, root, prepare=None):
    prepare = prepare or Prepare(files)
    return pixel_cache("numbers", files, prepare, SIZE, root=root), prepare


def test_every_image_is_prepared_once_and_comes_back_as_it_was(files, tmp_path, capsys):
    first, prepare = build(files, tmp_path / "cache")
    assert sorted(prepare.calls) == list(files)
    assert f"5 images are decoded once, to {first.folder}" in capsys.readouterr().out
    again, later = build(files, tmp_path / "cache")
    assert later.calls == []
    assert capsys.readouterr().out == ""
    assert first.bytes == again.bytes == 5 * 4 * 4 * 6
    for image_id in files:
        image, labels = again[image_id]
        assert (image == int(image_id)).all()
        assert (labels == 100 + int(image_id)).all()
        assert (image.shape, labels.shape) == ((3, *SIZE), SIZE)


def test_what_is_given_is_a_copy(files, tmp_path):
    found, _ = build(files, tmp_path / "cache")
    found["3"][0].zero_()
    assert (found["3"][0] == 3).all()


def test_touched_files_serve_and_changed_ones_are_prepared_anew(files, tmp_path):
    build(files, tmp_path / "cache")
    path = files["2"][0]
    os.utime(path, ns=(1, 1))
    assert build(files, tmp_path / "cache")[1].calls == []
    times = path.stat()
    path.write_text("7")
    # Same length, and the time of the last change set back: the content alone tells.
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    found, prepare = build(files, tmp_path / "cache")
    assert sorted(prepare.calls) == list(files)
    assert (found["2"][0] == 7).all()


def test_a_file_that_changes_while_it_is_read_is_read_again(files, tmp_path):
    def prepare(image_id):
        made = Prepare(files)(image_id)
        if image_id == "4":
            files["4"][0].write_text("9")
        return made

    build(files, tmp_path / "cache", prepare)
    assert (build(files, tmp_path / "cache")[0]["4"][0] == 9).all()


@pytest.mark.parametrize("damage", ["manifest.json", "pixels.npy", "rule"])
def test_an_entry_that_is_not_whole_is_made_anew(files, tmp_path, damage):
    found, _ = build(files, tmp_path / "cache")
    if damage == "rule":
        manifest = found.folder / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"rule": 0}))
    else:
        (found.folder / damage).write_bytes((found.folder / damage).read_bytes()[:20])
    found, prepare = build(files, tmp_path / "cache")
    assert sorted(prepare.calls) == list(files)
    assert (found["1"][0] == 1).all()


def test_other_ids_and_sizes_have_entries_of_their_own(files, tmp_path):
    everything, _ = build(files, tmp_path / "cache")
    some, prepare = build({i: files[i] for i in ("0", "3")}, tmp_path / "cache")
    assert sorted(prepare.calls) == ["0", "3"]
    assert some.folder != everything.folder
    assert (some["3"][0] == 3).all()
    assert "1" not in some


def test_a_disk_without_room_is_said_and_nothing_is_written(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 500, 500))
    assert build(files, tmp_path / "cache")[0] is None
    assert "do not fit" in capsys.readouterr().out
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_error_on_the_way_leaves_no_entry(files, tmp_path):
    def broken(image_id):
        raise DataError("3.txt is damaged")

    with pytest.raises(DataError, match=r"3\.txt is damaged"):
        build(files, tmp_path / "cache", broken)
    assert build(files, tmp_path / "cache")[1].calls != []


def test_kill_9_in_the_middle_leaves_nothing_that_is_taken_for_whole(files, tmp_path):
    program = f"""
        import os, signal, torch
        from pathlib import Path
        from fsslib.data.cache import pixel_cache
        files = {{str(n): (Path({str(tmp_path / "files")!r}) / f"{{n}}.txt",) for n in range(5)}}
        def prepare(image_id):
            if image_id == "3":
                os.kill(os.getpid(), signal.SIGKILL)
            return torch.full((3, 4, 6), 50, dtype=torch.uint8), torch.zeros(4, 6, dtype=torch.uint8)
        pixel_cache("numbers", files, prepare, (4, 6), root=Path({str(tmp_path / "cache")!r}), workers=1)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    left = {path.name[0] for path in (tmp_path / "cache").iterdir() if path.is_dir()}
    assert left == {"."}
    found, prepare = build(files, tmp_path / "cache")
    assert sorted(prepare.calls) == list(files)
    assert (found["0"][0] == 0).all()
    assert not any(path.name[0] == "." for path in (tmp_path / "cache").iterdir())


def test_two_that_want_the_same_make_it_once(tmp_path):
    made = []

    def make(folder):
        made.append(folder)
        time.sleep(0.3)
        (folder / "whole").touch()

    def read(folder):
        return (folder / "whole").exists() or None

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: make_once(tmp_path / "entry", read, make), range(2)))
    assert found == [True, True]
    assert len(made) == 1


def test_what_fails_in_the_making_leaves_no_folder(tmp_path):
    def make(folder):
        (folder / "half").touch()
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        make_once(tmp_path / "entry", lambda folder: None, make)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


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


@pytest.fixture
def voc(tmp_path) -> PascalVOC:
    for number in range(4):
        add_image(tmp_path, f"2007_00000{number}", [(12, (5, 5 + number, 30, 40))])
    add_list(tmp_path, "train", [f"2007_00000{number}" for number in range(4)])
    return PascalVOC(tmp_path, size=32)


def test_episodes_over_a_cache_equal_those_decoded_each_time(voc, tmp_path):
    cached = voc.cached(tmp_path / "cache")
    rows = voc.sample([12], 3)
    expected, found = voc.episode(rows), cached.restricted(cached.ids).episode(rows)
    assert torch.equal(found.query_images, expected.query_images)
    assert torch.equal(found.support_masks, expected.support_masks)
    assert torch.equal(found.query_class_map, expected.query_class_map)


def test_a_cached_image_is_not_decoded_again(voc, tmp_path, monkeypatch):
    cached = voc.cached(tmp_path / "cache")
    monkeypatch.setattr(cached, "_load", lambda image_id: pytest.fail(f"{image_id} was decoded"))
    assert len(cached.episode(cached.sample([12], 3))) == 3


def test_joined_sets_read_from_the_caches_of_their_parts(voc, tmp_path, monkeypatch):
    whole = joined((voc.cached(tmp_path / "cache"),), name="all", domain="photo")
    monkeypatch.setattr(whole, "_load", lambda image_id: pytest.fail(f"{image_id} was decoded"))
    expected = voc.episode(voc.sample([12], 1)).query_images
    assert torch.equal(whole.episode(whole.sample([12], 1)).query_images, expected)


def test_label_maps_at_their_own_size_come_with_the_same_pixels_and_leave_the_set_alone(voc, tmp_path):
    cached = voc.cached(tmp_path / "cache")
    rows = voc.sample([12], 3)
    expected = cached.episode(rows)
    kept = cached.under(PROTOCOLS["original"])
    found = kept.episode(rows)
    assert torch.equal(found.query_images, expected.query_images)
    assert torch.equal(found.query_labels, expected.query_labels)
    for row, original in zip(rows, found.query_originals):
        truth = voc.original(row.query)[1]
        assert torch.equal(original, torch.where(truth == 12, 1, truth))
        assert original.shape == (45, 60)
    assert cached.episode(rows).query_originals is voc.episode(rows).query_originals is None
    assert joined((voc,), name="all", domain="photo").under(PROTOCOLS["original"]).keep_originals


def test_as_many_threads_decode_as_cores_may_be_used(files, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cache, "ThreadPoolExecutor", lambda count: asked.append(count) or ThreadPoolExecutor(count))
    monkeypatch.setattr(cache.os, "sched_getaffinity", lambda process: {4, 7, 9}, raising=False)
    build(files, tmp_path / "cache")
    monkeypatch.delattr(cache.os, "sched_getaffinity")
    monkeypatch.setattr(cache.os, "cpu_count", lambda: 5)
    build(files, tmp_path / "another")
    assert asked == [3, 5]


def test_a_damaged_image_is_named_when_the_cache_is_made(voc, tmp_path):
    path = voc._image_path(voc.ids[0])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=path.name):
        voc.cached(tmp_path / "cache")
