"""Fetching from a local server that cuts, lies, redirects and fails, and archives that mean harm. 15 s."""

import hashlib
import io
import shutil
import socket
import stat
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from fsslib.data import fetch as module
from fsslib.data.fetch import WORK, Archive, fetch
from fsslib.files import DataError

IMAGES = {f"set/images/{n:02d}.jpg": hashlib.sha256(bytes([n])).digest() * 900 for n in range(20)}
WHOLE = {name.replace("set/", "Set/"): content for name, content in IMAGES.items()}
PLACES = {"set/images": "Set/images"}


def pack(name: str, files: dict[str, bytes], *links: tarfile.TarInfo | zipfile.ZipInfo) -> bytes:
    """An archive of the kind that the name says."""
    buffer = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w") as archive:
            for info, content in ((zipfile.ZipInfo(path), content) for path, content in files.items()):
                archive.writestr(info, content)
            for info in links:
                archive.writestr(info, "../../../outside")
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if name.endswith(".tgz") else "w") as archive:
            for path, content in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            for info in links:
                archive.addfile(info)
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


GOOD = pack(".zip", IMAGES)
THIRD = len(GOOD) // 3


class Site(ThreadingHTTPServer):
    """Serves `GOOD` at /WAY/file.zip in the way that the path names; other contents where `contents` has the name."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.closed_port = free.getsockname()[1]

    def url(self, way: str, name: str = "file.zip") -> str:
        return f"http://127.0.0.1:{self.closed_port if way == 'down' else self.server_port}/{way}/{name}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        _, way, name = self.path.split("/")
        content = self.server.contents.get(name, GOOD)
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


UNKNOWN = {"checksum": None, "size": None}


def archive(*urls: str, content: bytes = GOOD, **options) -> Archive:
    options = {"name": "file.zip", "places": PLACES, "checksum": sha256(content), "size": len(content)} | options
    return Archive(urls=urls, **options)


def there(folder: Path) -> dict[str, bytes]:
    """All files below a folder but those of the working folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and WORK not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# What servers do


@pytest.mark.parametrize("way", ["good", "redirect", "encoded", "no_range", "cut", "long"])
@pytest.mark.parametrize("checksum", ["sha256", "md5", None])
def test_a_usable_address_gives_the_archive_once(site, tmp_path, capsys, way, checksum):
    hashed = checksum and f"{checksum}:{hashlib.new(checksum, GOOD).hexdigest()}"
    # Without a size to hold against it, what a server says too much of is cut short and then asked for in vain.
    wanted = archive(site.url(way), checksum=hashed, size=None if way == "long" else len(GOOD))
    fetch([wanted], tmp_path)
    assert there(tmp_path) == WHOLE
    assert [path.name for path in (tmp_path / WORK).iterdir()] == ["lock"]
    assert "1 archive to download: 0.00 GB" in capsys.readouterr().out
    if way == "cut":
        assert [asked for _, asked in site.asked[:3]] == [None, f"bytes={THIRD}-", f"bytes={2 * THIRD}-"]
    site.asked.clear()
    fetch([wanted], tmp_path)
    assert site.asked == []
    assert capsys.readouterr().out == ""


BAD = [
    ("404", {}, "answers 404 Not Found"),
    ("500", {}, "answers 500 Internal Server Error"),
    ("wrong", {}, "does not match the known hash"),
    ("page", {}, "sends a web page in place of the archive"),
    ("long", {}, f"offers {len(GOOD) + 1000:,} bytes, where {len(GOOD):,} are expected"),
    ("short", {}, f"offers {len(GOOD) // 2:,} bytes, where {len(GOOD):,} are expected"),
    ("short", {"size": None}, "does not match the known hash"),
    ("short", UNKNOWN, "File is not a zip file"),
    ("cut_always", {}, f"ended after {THIRD:,} of {len(GOOD):,} bytes"),
    ("silent", {}, "cannot be reached (timed out)"),
    ("down", {}, "Connection refused"),
]


@pytest.mark.parametrize(("way", "known", "answer"), BAD)
def test_what_a_bad_address_said_is_told_and_the_next_one_tried(site, tmp_path, way, known, answer):
    with pytest.raises(DataError) as error:
        fetch([archive(site.url(way), **known)], tmp_path)
    assert f"file.zip could not be fetched. What its addresses said:\n  {site.url(way)}\n    " in str(error.value)
    assert answer in str(error.value)
    came = THIRD if way == "cut_always" else 0
    then = f"goes on after the {came:,} bytes that came" if came else "fetches it from its beginning"
    assert str(error.value).endswith(f"Try again later: the next call {then}.")
    assert there(tmp_path) == {}

    fetch([archive(site.url("good"), **known)], tmp_path)
    assert site.asked[-1] == ("good", f"bytes={came}-" if came else None)
    assert there(tmp_path) == WHOLE
    fetch([archive(site.url(way), site.url("good"), **known)], tmp_path / "another")
    assert there(tmp_path / "another") == WHOLE


@pytest.mark.parametrize("stale", [b"another file", b"x" * (len(GOOD) + 5), b"x" * len(GOOD)])
def test_the_beginning_of_another_file_is_thrown_away(site, tmp_path, stale):
    (tmp_path / WORK).mkdir()
    (tmp_path / WORK / "file.zip.part").write_bytes(stale)
    fetch([archive(site.url("good"))], tmp_path)
    assert site.asked[-1] == ("good", None)
    assert there(tmp_path) == WHOLE


# What stops in the middle


@pytest.mark.parametrize(
    ("owner", "name", "error", "raised", "said"),
    [
        (module, "_read", KeyboardInterrupt("stopped"), KeyboardInterrupt, "stopped"),
        (shutil, "copyfileobj", KeyboardInterrupt("stopped"), KeyboardInterrupt, "stopped"),
        (shutil, "copyfileobj", OSError("No space left"), DataError, "written .No space left.*the next call goes on"),
    ],
    ids=["downloading", "unpacking", "full disk"],
)
def test_an_interrupted_call_leaves_nothing_and_is_taken_up(
    site, tmp_path, monkeypatch, owner, name, error, raised, said
):
    real, calls = getattr(owner, name), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise error
        return real(*arguments)

    monkeypatch.setattr(module, "CHUNK", len(GOOD) // 8)
    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(raised, match=said):
        fetch([archive(site.url("good"))], tmp_path)
    assert len(calls) == 5
    assert there(tmp_path) == {}
    fetch([archive(site.url("good"))], tmp_path)
    assert there(tmp_path) == WHOLE
    assert site.asked[1:] == [("good", f"bytes={len(GOOD) // 8 * 4}-")] * (name == "_read")


def test_a_set_of_several_archives_appears_when_all_are_there(site, tmp_path):
    """Two archives fill one folder, as the ten parts of GTA5 do."""
    halves = [dict(list(IMAGES.items())[half::2]) for half in (0, 1)]
    contents = [pack(".zip", half) for half in halves]
    site.contents |= {f"{number}.zip": content for number, content in enumerate(contents)}

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
    content = site.contents["file.zip"] = pack(".zip", IMAGES | {"set/list.txt": b"00"})
    fetch([archive(site.url("good"), content=content, places=PLACES | {"set/list.txt": "Set/list.txt"})], tmp_path)
    assert there(tmp_path) == {"Set/images/mine.jpg": b"mine", "Set/list.txt": b"00"}


def test_two_at_once_fetch_once(site, tmp_path):
    threads = [threading.Thread(target=fetch, args=([archive(site.url("cut"))], tmp_path)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert there(tmp_path) == WHOLE
    assert [asked for _, asked in site.asked].count(None) == 1


# What archives hold


def link(kind: bytes, name: str = "set/images/out", target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zipped_link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("set/images/out")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


TGZ, TAR = pack(".tgz", IMAGES), pack(".tar", IMAGES)
UP = {"set/images/../../../../outside": b"x", "/outside": b"x", "C:\\outside": b"x", "set\\..\\..\\outside": b"x"}
LINKS = {
    "link.tgz": link(tarfile.SYMTYPE),
    "folder_link.tgz": link(tarfile.SYMTYPE, "set/images", "../../.."),
    "hard_link.tgz": link(tarfile.LNKTYPE),
    "device.tgz": link(tarfile.CHRTYPE),
}
# The bit that says "encrypted" in the record of the first file, at the archive's end, and before its bytes.
LOCKED = GOOD[:6] + b"\1" + GOOD[7 : (at := GOOD.index(b"PK\1\2")) + 8] + b"\1" + GOOD[at + 9 :]
UNUSABLE = {
    "up.tgz": (pack("up.tgz", IMAGES | {"set/images/../../../outside": b"x"}), "outside the destination"),
    **{
        name: (pack(name, IMAGES, info), "absolute path|outside the destination|special file")
        for name, info in LINKS.items()
    },
    "other.zip": (pack(".zip", {"other/0": b"x", "set/imagesque/0": b"x"}), "holds no 'set/images', only other, set"),
    "cut.zip": (GOOD[: len(GOOD) // 2], "File is not a zip file"),
    "cut.tgz": (TGZ[: len(TGZ) // 2], "ended before the end-of-stream marker"),
    "cut.tar": (TAR[: len(TAR) // 2], "unexpected end of data"),
    "flipped.zip": (flipped(GOOD), "Bad CRC-32"),
    "no_header.tar": (bytes(512) + TAR[512:], "holds no 'set/images', only nothing"),
    "locked.zip": (LOCKED, "password required"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_of_an_unusable_archive_nothing_is_kept(site, tmp_path, name):
    content, said = UNUSABLE[name]
    site.contents[name] = content
    with pytest.raises(DataError, match=rf"{name} could not be fetched(?s:.*)({said})"):
        fetch([archive(site.url("good", name), name=name, **UNKNOWN)], tmp_path / "a" / "b")
    assert there(tmp_path) == {}
    assert not any(path.is_symlink() or path.suffix == ".jpg" for path in tmp_path.rglob("*"))


def test_a_zip_writes_nothing_outside_and_makes_no_link(site, tmp_path):
    content = site.contents["file.zip"] = pack(".zip", IMAGES | UP, zipped_link())
    fetch([archive(site.url("good"), content=content)], tmp_path / "a" / "b")
    inside = there(tmp_path / "a" / "b")
    assert inside.items() >= WHOLE.items()
    assert there(tmp_path) == {f"a/b/{name}": found for name, found in inside.items()}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert not Path("/outside").exists()


def test_what_lies_beside_the_places_is_left_in_the_archive(site, tmp_path):
    beside = {"set/imagesque/x": b"x"} | {f"./{n}": c for n, c in IMAGES.items()}
    content = site.contents["file.tgz"] = pack(".tgz", beside)
    fetch([archive(site.url("good", "file.tgz"), name="file.tgz", content=content)], tmp_path)
    assert there(tmp_path) == WHOLE


def test_without_a_published_checksum_that_of_what_came_is_told(site, tmp_path, capsys):
    fetch([archive(site.url("good"), **UNKNOWN)], tmp_path)
    said = capsys.readouterr().out
    assert "0.00 GB; the size of 1 is not known" in said
    assert f"nobody publishes a checksum for it. What came is sound in itself and has {sha256(GOOD)}" in said


# Room on the disk


def test_too_little_room_is_said_before_anything_is_fetched(site, tmp_path, monkeypatch, capsys):
    def leave_room(free: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    leave_room(50_000)
    needs = r"needed for archives and what they unpack to, and the disk of .* 0\.00 GB free\. Make room"
    with pytest.raises(DataError, match=needs):
        fetch([archive(site.url("good"), size=10**9)], tmp_path)
    assert site.asked == []
    with pytest.raises(DataError, match=needs):
        fetch([archive(site.url("good"), size=None)], tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 0

    # What is here already needs no room again.
    (tmp_path / WORK / "file.zip.part").write_bytes(GOOD[: len(GOOD) // 2])
    leave_room(1.6 * len(GOOD))
    with pytest.raises(DataError, match="are needed"):
        fetch([archive(site.url("good"), name="another.zip")], tmp_path)
    capsys.readouterr()
    fetch([archive(site.url("good"))], tmp_path)
    assert "1 archive to download: 0.00 GB, of which 0.00 GB are here." in capsys.readouterr().out
    assert there(tmp_path) == WHOLE


def test_nothing_is_promised_where_nothing_came(site, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written .* name another folder with FSSLIB_DATA\.$"):
        fetch([archive(site.url("good"))], tmp_path / "file" / "data")
