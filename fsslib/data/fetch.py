"""Archives from the web to folders of a data set, which appear whole or not at all."""

import gzip
import http.client
import lzma
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import filelock
from tqdm import tqdm

from fsslib.files import DataError

WORK = ".fetching"
"""Folder beside the data sets for what is under way. It may be deleted whenever nothing is being fetched."""

TRIES, PAUSE, TIMEOUT = 5, 2.0, 30.0
"""How often one address is tried (it is left for the next as soon as a try brings nothing new), the seconds between two
tries, and those that an address may stay silent."""

CHUNK = 2**16


@dataclass(frozen=True)
class Archive:
    """A zip or tar archive, where it is offered, and what of it is kept.

    An address of `urls` that ends in / is that of the folder around it. `places` says which folders and files inside
    the archive go where below the data folder. `checksum` is "sha256:..." or "md5:...", or None where nobody publishes
    one. `size` is in bytes; where only a rounded one is published, that is `about_gb`. `source` names who publishes
    checksum and size.
    """

    name: str
    urls: Sequence[str]
    places: Mapping[str, str]
    checksum: str | None = None
    size: int | None = None
    about_gb: float | None = None
    source: str = ""

    @property
    def addresses(self) -> list[str]:
        return [url + self.name if url.endswith("/") else url for url in self.urls]

    @property
    def gigabytes(self) -> float | None:
        return self.about_gb if self.size is None else self.size / 1e9


class _Unusable(Exception):
    """What an address says or sends is of no use; the next one may be better."""


DAMAGE = (
    *(_Unusable, ValueError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
)
"""What a wrong or damaged archive raises: ValueError is pooch's, for a checksum that differs, and RuntimeError that of
zipfile, for a file with a password."""


def fetch(archives: Sequence[Archive], folder: Path) -> None:
    """Download the archives whose places are not all there below `folder`, and unpack them to their places.

    Everything is gathered in a working folder first and moved to its places when all archives are there, so what is
    half downloaded or half unpacked is never taken for a data set; an interrupted call is taken up by the next one. A
    place that is there already is left alone. No archive writes outside its folder. Two processes wait for each other.

    Raises DataError when there is too little room on the disk, when the folder cannot be written, and when no address
    of an archive gives what was expected: with what each of them said.
    """
    work = folder / WORK
    stage = work / archives[0].name.partition(".")[0]
    try:
        work.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(work / "lock"):
            missing = [archive for archive in archives if not _all_there(archive, folder)]
            todo = [a for a in missing if not (_done(a, stage).exists() and _all_there(a, folder, stage))]
            if todo:
                _announce(todo, work)
            for archive in todo:
                _download_and_unpack(archive, work, stage)
            for place in {place for archive in missing for place in archive.places.values()}:
                if not (folder / place).exists():
                    (folder / place).parent.mkdir(parents=True, exist_ok=True)
                    os.rename(stage / place, folder / place)
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        begun = stage.is_dir() or _here(archives, work)
        kept = f" What has come so far is kept in {work}; the next call goes on with it." if begun else ""
        raise DataError(
            f"{folder} cannot be written ({error}). Make room there, or name another folder with FSSLIB_DATA.{kept}"
        ) from error


def _all_there(archive: Archive, *folders: Path) -> bool:
    return all(any((folder / place).exists() for folder in folders) for place in archive.places.values())


def _done(archive: Archive, stage: Path) -> Path:
    return stage / f".{archive.name}.done"


def _announce(todo: Sequence[Archive], work: Path) -> None:
    """Say how much is to come. Raises DataError when the disk has no room for the archives and as much unpacked."""
    sizes, here = [archive.gigabytes for archive in todo], _here(todo, work)
    known = sum(size for size in sizes if size)
    unknown = f"; the size of {sizes.count(None)} is not known" if None in sizes else ""
    begun = f", of which {here / 1e9:.2f} GB are here" if here else ""
    print(f"{len(todo)} archive{'s' * (len(todo) > 1)} to download: {known:.2f} GB{begun}{unknown}.")
    # Images hardly shrink in archives, and each archive is deleted when it is unpacked.
    _check_room(1e9 * (known + max(size or 0 for size in sizes)) - here, work)


def _here(archives: Sequence[Archive], work: Path) -> int:
    """Bytes of archives, whole or begun, that wait in the working folder."""
    return sum(_size(work / name) for archive in archives for name in (archive.name, f"{archive.name}.part"))


def _check_room(needed: float, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{needed / 1e9:.2f} GB are needed for archives and what they unpack to, and the disk of {folder} has "
            f"{free / 1e9:.2f} GB free. Make room there, or name a folder on a larger disk with FSSLIB_DATA."
        )


def _download_and_unpack(archive: Archive, work: Path, stage: Path) -> None:
    """One archive to its places below `stage`, from the first of its addresses that gives what was expected."""
    import pooch  # here, because it takes a while and `fsslib data list` does without

    pooch.get_logger().setLevel("WARNING")
    file, part, said = work / archive.name, work / f"{archive.name}.part", {}
    print(archive.name)

    def download(url: str, output: str, _: object) -> None:
        if _size(part) != archive.size:
            _stream(url, part, archive)
        os.replace(part, output)

    for url in archive.addresses:
        for _ in range(TRIES):
            before = _here([archive], work)
            try:
                pooch.retrieve(url, archive.checksum, archive.name, work, downloader=download)
                _unpack(archive, file, stage)
            except DataError:
                raise
            except DAMAGE as error:
                file.unlink(missing_ok=True)
                said[url] = str(error)
            else:
                if archive.checksum is None:
                    print(
                        f"{archive.name}: nobody publishes a checksum for it. What came is sound in itself and has "
                        f"sha256:{pooch.file_hash(str(file))}: compare it with that of another machine."
                    )
                _done(archive, stage).touch()
                file.unlink()
                return
            if _size(part) == before:
                break
            time.sleep(PAUSE)
    answers = "".join(f"\n  {url}\n    {answer}" for url, answer in said.items())
    then = f"goes on after the {_size(part):,} bytes that came" if _size(part) else "fetches it from its beginning"
    raise DataError(
        f"{archive.name} could not be fetched. What its addresses said:{answers}\nTry again later: the next call "
        f"{then}."
    )


def _size(path: Path) -> int:
    return os.path.getsize(path) if os.path.isfile(path) else 0


def _stream(url: str, part: Path, archive: Archive) -> None:
    """Append to `part` what the address has after it, or all where it cannot begin in the middle."""
    have = _size(part)
    # "identity": some servers say of a .tgz that its compression is theirs, and clients then undo it.
    headers = {"User-Agent": "fsslib", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing comes after what is here: whether it is the archive, its checksum tells
        raise _Unusable(f"answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Unusable(f"cannot be reached ({error})") from error
    with response:
        if response.headers.get_content_type() == "text/html":
            raise _Unusable("sends a web page in place of the archive; it may ask for a login or a click")
        have = have if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        length = response.headers["Content-Length"]
        total = None if length is None else have + int(length)
        if archive.size and total not in (None, archive.size):
            raise _Unusable(f"offers {total:,} bytes, where {archive.size:,} are expected")
        _check_room((total or have) - have, part.parent)
        bar = tqdm(total=total, initial=have, desc=archive.name, unit="B", unit_scale=True, disable=None)
        with part.open("ab" if have else "wb") as target, bar:
            while chunk := _read(response, target):
                target.write(chunk)
                bar.update(len(chunk))
    if total not in (None, _size(part)):
        raise _Unusable(f"ended after {_size(part):,} of {total:,} bytes")


def _read(response: http.client.HTTPResponse, target: IO[bytes]) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Unusable(f"broke off after {target.tell():,} bytes ({error})") from error


def _unpack(archive: Archive, file: Path, stage: Path) -> None:
    """Add what is kept of an archive to its places below `stage`: all of it, or nothing where it is damaged.

    Names that lead outside and links are left to the libraries: zipfile writes either as a plain file inside, tarfile's
    "data" filter raises, as for devices.
    """
    unfinished = stage.with_name(f"{stage.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    print(f"{archive.name}: unpacking", flush=True)
    try:
        with zipfile.ZipFile(file) if file.suffix == ".zip" else tarfile.open(file) as opened:
            opened.extraction_filter = getattr(tarfile, "data_filter", None)  # not before Python 3.11.4
            opened.extractall(unfinished)
        for kept in archive.places:
            if not (unfinished / kept).exists():
                there = ", ".join(sorted(os.listdir(unfinished))[:8]) if unfinished.exists() else "nothing"
                raise _Unusable(f"holds no {kept!r}, only {there}")
        for kept, place in archive.places.items():
            (stage / place).parent.mkdir(parents=True, exist_ok=True)
            move = partial(shutil.copytree, copy_function=os.replace, dirs_exist_ok=True)
            (move if (unfinished / kept).is_dir() else os.replace)(unfinished / kept, stage / place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
