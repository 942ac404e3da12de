"""Fetching from a local server that cuts, lies, redirects and fails, and archives that mean harm. 15 s."""

import errno
import hashlib
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fsslib.data import fetch as module
from fsslib.data.fetch import RECORD, WORK, Archive, fetch
from fsslib.data.images import DataError

IMAGES = {f"set/images/{n:02d}.jpg": hashlib.sha256(bytes([n])).digest() * 900 for n in range(20)}
PLACES = {"set/images": "Set/images"}


def make_zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def make_tar(files: dict[str, bytes], *links: tarfile.TarInfo, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for link in links:
            archive.addfile(link)
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


GOOD = make_zip(IMAGES)


class Site(ThreadingHTTPServer):
    """Serves `GOOD` at /WAY/file.zip in the way that the path names; other contents where `contents` has the path."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []

    def url(self, way: str, name: str = "file.zip") -> str:
        return f"http://127.0.0.1:{self.server_port}/{way}/{name}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        way, content = self.path.split("/")[1], self.server.contents.get(self.path, GOOD)
        self.server.asked.append((way, self.headers["Range"]))
        if way.isdigit():
            return self.send_error(int(way))
        if way == "redirect":
            self.send_response(302)
            self.send_header("Location", self.path.replace("redirect", "good"))
            return self.end_headers()
        if way == "silent":
            return time.sleep(2)
        if way == "wrong":
            content = bytes(len(content))
        first = 0
        if self.headers["Range"] and way not in ("no_range", "cut_always"):
            first = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if first >= len(content):
                return self.send_error(416)
        rest = content[first:]
        length = {"long": len(rest) + 1000, "short": len(rest) // 2}.get(way, len(rest))
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(length))
        self.send_header("Content-Type", "text/html" if way == "page" else "application/octet-stream")
        if way == "encoded":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if way in ("cut", "cut_always"):
            rest = rest[: len(content) // 3]
        self.wfile.write(rest[:length])


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def archive(*urls: str, content: bytes = GOOD, **options) -> Archive:
    options = {"name": "file.zip", "places": PLACES, "checksum": sha256(content), "size": len(content)} | options
    return Archive(urls=urls, **options)


def there(folder: Path) -> dict[str, bytes]:
    """All files below a folder but those of the working folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and WORK not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


WHOLE = {name.replace("set/", "Set/"): content for name, content in IMAGES.items()}


def test_an_archive_is_unpacked_to_its_place_and_not_fetched_again(site, tmp_path, capsys):
    wanted = archive(site.url("good"))
    fetch([wanted], tmp_path)
    assert there(tmp_path) == WHOLE
    assert [path.name for path in (tmp_path / WORK).iterdir()] == ["lock"]
    assert "1 archive to download: 0.00 GB." in capsys.readouterr().out
    fetch([wanted], tmp_path)
    assert len(site.asked) == 1
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("way", ["good", "redirect", "encoded", "no_range", "cut", "long_hash_only"])
@pytest.mark.parametrize("checksum", ["sha256", "md5", None])
def test_a_usable_address_gives_the_archive(site, tmp_path, way, checksum):
    hashed = checksum and f"{checksum}:{hashlib.new(checksum, GOOD).hexdigest()}"
    # Without a size to hold against it, what a server says too much of is cut short and then asked for in vain.
    size = None if way == "long_hash_only" else len(GOOD)
    fetch([archive(site.url(way.removesuffix("_hash_only")), checksum=hashed, size=size)], tmp_path)
    assert {name: content for name, content in there(tmp_path).items() if name != RECORD} == WHOLE


BAD = {
    "404": "answers 404 Not Found",
    "500": "answers 500 Internal Server Error",
    "wrong": "does not match the known hash",
    "page": "sends a web page in place of the archive",
    "long": f"offers {len(GOOD) + 1000:,} bytes, where {len(GOOD):,} are expected",
    "short": f"offers {len(GOOD) // 2:,} bytes, where {len(GOOD):,} are expected",
    "cut_always": f"ended after {len(GOOD) // 3:,} of {len(GOOD):,} bytes",
    "silent": "cannot be reached (timed out)",
}


@pytest.mark.parametrize(("way", "answer"), BAD.items(), ids=BAD)
def test_what_a_bad_address_said_is_told_and_the_next_one_tried(site, tmp_path, way, answer):
    with pytest.raises(DataError) as error:
        fetch([archive(site.url(way))], tmp_path)
    assert f"file.zip could not be fetched. What its addresses said:\n  {site.url(way)}\n    " in str(error.value)
    assert answer in str(error.value)
    came = len(GOOD) // 3 if way == "cut_always" else 0
    then = f"goes on after the {came:,} bytes that came" if came else "fetches it from its beginning"
    assert str(error.value).endswith(f"Try again later: the next call {then}.")
    assert there(tmp_path) == {}

    fetch([archive(site.url("good"))], tmp_path)
    assert site.asked[-1] == ("good", f"bytes={came}-" if came else None)
    assert there(tmp_path) == WHOLE


@pytest.mark.parametrize("way", BAD)
def test_after_a_bad_address_the_next_one_is_tried(site, tmp_path, way):
    fetch([archive(site.url(way), site.url("good"))], tmp_path)
    assert there(tmp_path) == WHOLE


def test_a_server_that_is_down_is_told(site, tmp_path):
    with Site() as other:
        down = other.url("good")
    with pytest.raises(DataError, match=r"cannot be reached \(.*refused"):
        fetch([archive(down)], tmp_path)
    fetch([archive(down, site.url("good"))], tmp_path)
    assert there(tmp_path) == WHOLE


def test_a_short_length_without_a_known_size_is_caught_by_the_checksum(site, tmp_path):
    with pytest.raises(DataError, match="does not match the known hash"):
        fetch([archive(site.url("short"), size=None)], tmp_path)
    with pytest.raises(DataError, match="File is not a zip file"):
        fetch([archive(site.url("short"), size=None, checksum=None)], tmp_path)
    assert there(tmp_path) == {}


def test_a_download_goes_on_where_it_was_cut(site, tmp_path):
    third = len(GOOD) // 3
    fetch([archive(site.url("cut"))], tmp_path)
    assert [asked for _, asked in site.asked[:3]] == [None, f"bytes={third}-", f"bytes={2 * third}-"]
    assert there(tmp_path) == WHOLE


def test_the_next_call_goes_on_where_the_last_one_ended(site, tmp_path):
    with pytest.raises(DataError):
        fetch([archive(site.url("cut_always"))], tmp_path)
    fetch([archive(site.url("good"))], tmp_path)
    assert site.asked[-1] == ("good", f"bytes={len(GOOD) // 3}-")
    assert there(tmp_path) == WHOLE


@pytest.mark.parametrize("stale", [b"another file", b"x" * (len(GOOD) + 5), b"x" * len(GOOD)])
def test_the_beginning_of_another_file_is_thrown_away(site, tmp_path, stale):
    (tmp_path / WORK).mkdir()
    (tmp_path / WORK / "file.zip.part").write_bytes(stale)
    fetch([archive(site.url("good"))], tmp_path)
    assert site.asked[-1] == ("good", None)
    assert there(tmp_path) == WHOLE


@pytest.mark.parametrize("where", ["_read", "copyfileobj"])
def test_an_interrupted_call_leaves_nothing_and_is_taken_up(site, tmp_path, monkeypatch, where):
    owner = module if where == "_read" else shutil
    real, calls = getattr(owner, where), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, "CHUNK", len(GOOD) // 8)
    monkeypatch.setattr(owner, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch([archive(site.url("good"))], tmp_path)
    assert len(calls) == 5
    assert there(tmp_path) == {}
    fetch([archive(site.url("good"))], tmp_path)
    assert there(tmp_path) == WHOLE
    half = len(GOOD) // 8 * 4
    assert site.asked[1:] == ([("good", f"bytes={half}-")] if where == "_read" else [])


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_looks_whole(site, tmp_path):
    code = f"""
import shutil, sys
from pathlib import Path
from fsslib.data import fetch
real, calls = shutil.copyfileobj, []
def slow(*arguments):
    calls.append(1)
    if len(calls) == 7:
        print("unpacking", flush=True)
        sys.stdin.read()
    real(*arguments)
shutil.copyfileobj = slow
fetch.fetch([fetch.Archive("file.zip", ({site.url("good")!r},), {PLACES!r}, {sha256(GOOD)!r})], Path({str(tmp_path)!r}))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    with process:
        assert [process.stdout.readline() for _ in range(3)][1:] == ["file.zip\n", "unpacking\n"]
        process.send_signal(signal.SIGKILL)
    assert len(list((tmp_path / WORK).rglob("*.jpg"))) == 7  # the seventh empty
    assert there(tmp_path) == {}
    fetch([archive(site.url("good"))], tmp_path)
    assert there(tmp_path) == WHOLE
    assert len(site.asked) == 1


def test_a_set_of_several_archives_appears_when_all_are_there(site, tmp_path):
    """Two archives fill one folder, as the ten parts of GTA5 do."""
    halves = [dict(list(IMAGES.items())[half::2]) for half in (0, 1)]
    contents = [make_zip(half) for half in halves]
    for number, content in enumerate(contents):
        site.contents[f"/good/{number}.zip"] = content

    def part(number: int, way: str) -> Archive:
        return archive(site.url(way, f"{number}.zip"), name=f"{number}.zip", content=contents[number])

    with pytest.raises(DataError, match=r"1\.zip could not be fetched"):
        fetch([part(0, "good"), part(1, "404")], tmp_path)
    assert there(tmp_path) == {}
    fetch([part(0, "good"), part(1, "good")], tmp_path)
    assert there(tmp_path) == WHOLE
    assert [way for way, _ in site.asked] == ["good", "404", "good"]


def test_a_place_that_is_there_is_left_alone(site, tmp_path):
    (tmp_path / "Set" / "images").mkdir(parents=True)
    (tmp_path / "Set" / "images" / "mine.jpg").write_bytes(b"mine")
    lists = archive(
        site.url("good"),
        content=(content := make_zip(IMAGES | {"set/list.txt": b"00"})),
        places=PLACES | {"set/list.txt": "Set/list.txt"},
    )
    site.contents["/good/file.zip"] = content
    fetch([lists], tmp_path)
    assert there(tmp_path) == {"Set/images/mine.jpg": b"mine", "Set/list.txt": b"00"}


def link(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zipped_link() -> bytes:
    buffer = io.BytesIO(GOOD)
    with zipfile.ZipFile(buffer, "a") as archive:
        info = zipfile.ZipInfo("set/images/out")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "../../../outside")
    return buffer.getvalue()


HARMFUL = {
    "up.zip": make_zip(IMAGES | {"set/images/../../../outside": b"x"}),
    "top.zip": make_zip(IMAGES | {"../outside": b"x"}),
    "absolute.zip": make_zip(IMAGES | {"/tmp/outside": b"x"}),
    "windows.zip": make_zip(IMAGES | {"set\\images\\..\\..\\..\\outside": b"x"}),
    "drive.zip": make_zip(IMAGES | {"C:outside": b"x"}),
    "link.zip": zipped_link(),
    "up.tgz": make_tar(IMAGES | {"set/images/../../../outside": b"x"}),
    "absolute.tar": make_tar(IMAGES | {"/tmp/outside": b"x"}, mode="w"),
    "link.tgz": make_tar(IMAGES, link("set/images/out", tarfile.SYMTYPE)),
    "folder_link.tgz": make_tar({}, link("set/images", tarfile.SYMTYPE, "../../..")),
    "hard_link.tgz": make_tar(IMAGES, link("set/images/out", tarfile.LNKTYPE)),
    "device.tgz": make_tar(IMAGES, link("set/images/out", tarfile.CHRTYPE)),
    "fifo.tgz": make_tar(IMAGES, link("set/images/out", tarfile.FIFOTYPE)),
}


@pytest.mark.parametrize("name", HARMFUL)
@pytest.mark.parametrize("known", [True, False])
def test_nothing_is_written_outside_and_no_link_made(site, tmp_path, name, known):
    content = site.contents[f"/good/{name}"] = HARMFUL[name]
    folder = tmp_path / "a" / "b"
    wanted = archive(
        site.url("good", name), name=name, content=content, **({} if known else {"checksum": None, "size": None})
    )
    with pytest.raises(DataError, match=r"would be written outside its folder|a link or a device"):
        fetch([wanted], folder)
    assert there(tmp_path) == {}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert not list(tmp_path.rglob("*.jpg"))


def test_what_lies_beside_the_places_is_left_in_the_archive(site, tmp_path):
    content = make_tar(
        {f"./{n}": c for n, c in IMAGES.items()} | {"set/imagesque/x": b"x"}, link("set/x", tarfile.SYMTYPE)
    )
    site.contents["/good/file.tgz"] = content
    fetch([archive(site.url("good", "file.tgz"), name="file.tgz", content=content)], tmp_path)
    assert there(tmp_path) == WHOLE


def test_an_archive_without_what_is_wanted_says_what_it_has(site, tmp_path):
    with pytest.raises(DataError, match="holds no 'other/images', only set"):
        fetch([archive(site.url("good"), places={"other/images": "Set/images"})], tmp_path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in ("file.zip", "file.tgz", "file.tar") for damage in ("cut", "flipped")),
        ("file.zip", "locked"),
    ],
)
def test_a_damaged_archive_without_a_checksum_is_refused(site, tmp_path, name, damage):
    content = GOOD if name == "file.zip" else make_tar(IMAGES, mode="w:gz" if name == "file.tgz" else "w")
    middle = len(content) // 2
    if damage == "cut":
        content = content[:middle]
    elif damage == "locked":
        # The bit that says "encrypted" in the record of the first file, at the archive's end, and before its bytes.
        directory = content.index(b"PK\x01\x02")
        content = content[:6] + b"\x01" + content[7 : directory + 8] + b"\x01" + content[directory + 9 :]
    elif name == "file.tar":
        content = bytes(512) + content[512:]  # only a tar's headers have checksums
    else:
        content = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    site.contents[f"/good/{name}"] = content
    with pytest.raises(DataError, match=f"{name} could not be fetched"):
        fetch([archive(site.url("good", name), name=name, checksum=None, size=None)], tmp_path)
    assert there(tmp_path) == {}


def test_without_a_published_checksum_that_of_what_came_is_noted(site, tmp_path, capsys):
    here, other = tmp_path / "here", tmp_path / "other"
    fetch([archive(site.url("good"), checksum=None, size=None)], here)
    said = capsys.readouterr().out
    assert "0.00 GB; the size of 1 is not known" in said
    assert f"nobody publishes a checksum for it. What came is sound in itself and has {sha256(GOOD)}" in said
    assert (here / RECORD).read_text() == f"{sha256(GOOD)} file.zip {site.url('good')}\n"

    other.mkdir()
    shutil.copy(here / RECORD, other)
    site.contents["/good/file.zip"] = make_zip(IMAGES | {"set/images/more.jpg": b"more"})
    with pytest.raises(DataError, match=r"does not match the known hash.* noted in .*fetched\.txt: take its line out"):
        fetch([archive(site.url("good"), checksum=None, size=None)], other)
    with pytest.raises(DataError) as error:
        fetch([archive(site.url("404"), checksum=None, size=None)], other)
    assert "noted" not in str(error.value), "a server that answers 404 sent nothing to compare"
    del site.contents["/good/file.zip"]
    fetch([archive(site.url("good"), checksum=None, size=None)], other)
    assert (other / RECORD).read_text() == (here / RECORD).read_text()


def test_too_little_room_is_said_before_anything_is_fetched(site, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**10, 10**10 - 50_000, 50_000))
    with pytest.raises(
        DataError, match=r"needed for archives and what they unpack to, and the disk of .* free\. Make room"
    ):
        fetch([archive(site.url("good"), size=10**9)], tmp_path)
    assert site.asked == []
    with pytest.raises(DataError, match=r"0\.00 GB free"):
        fetch([archive(site.url("good"), size=None)], tmp_path)
    assert there(tmp_path) == {}
    assert _bytes_here(tmp_path) == 0


def _bytes_here(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_is_here_already_needs_no_room_again(site, tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    (tmp_path / WORK).mkdir()
    (tmp_path / WORK / "file.zip.part").write_bytes(GOOD[: len(GOOD) // 2])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, int(1.6 * len(GOOD))))
    with pytest.raises(DataError, match="are needed"):
        fetch([archive(site.url("good"), name="another.zip")], tmp_path)
    capsys.readouterr()
    fetch([archive(site.url("good"))], tmp_path)
    assert "1 archive to download: 0.00 GB, of which 0.00 GB are here." in capsys.readouterr().out
    assert there(tmp_path) == WHOLE


def test_a_disk_that_fills_up_is_told_and_the_archive_kept(site, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(DataError, match=r"cannot be written .*No space left on device.*the next call goes on"):
            fetch([archive(site.url("good"))], tmp_path)
    assert there(tmp_path) == {}
    fetch([archive(site.url("good"))], tmp_path)
    assert there(tmp_path) == WHOLE
    assert len(site.asked) == 1


def test_nothing_is_promised_where_nothing_came(site, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written .* name another folder with FSSLIB_DATA\.$"):
        fetch([archive(site.url("good"))], tmp_path / "file" / "data")


def test_two_at_once_fetch_once(site, tmp_path):
    threads = [threading.Thread(target=fetch, args=([archive(site.url("cut"))], tmp_path)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert there(tmp_path) == WHOLE
    assert [asked for _, asked in site.asked].count(None) == 1
