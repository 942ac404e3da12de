"""What was computed once from the files of a data set, kept on disk: decoded and resized images, what each shows.

Everything lies below `data/cache` of the project and may be deleted at any time. An entry is tied to the content of the
files it was made from, appears whole or not at all, and is made by one process while others wait.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from fsslib.files import make_once, write_atomically
from fsslib.paths import project_root

Pair = tuple[Tensor, Tensor]

RULE = 3
"""Number of the rule by which images are read, resized and laid out: entries of another rule are made anew."""


def cache_root() -> Path:
    """The folder of all entries."""
    return project_root() / "data" / "cache"


class Pixels(Protocol):
    """Resized images and their label maps, by id."""

    def __contains__(self, image_id: str) -> bool: ...

    def __getitem__(self, image_id: str) -> Pair: ...


class PixelCache:
    """`Pixels` of one data set, memory-mapped."""

    def __init__(self, folder: Path, ids: Sequence[str]):
        self.folder = folder
        self._position = {image_id: position for position, image_id in enumerate(ids)}
        self._pixels = np.load(folder / "pixels.npy", mmap_mode="r")

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._position

    def __getitem__(self, image_id: str) -> tuple[UInt8[Tensor, "3 H W"], UInt8[Tensor, "H W"]]:
        pixels = torch.from_numpy(np.array(self._pixels[self._position[image_id]]))
        return pixels[:3], pixels[3]

    @property
    def bytes(self) -> int:
        return self._pixels.nbytes


def pixel_cache(
    name: str,
    files: Mapping[str, tuple[Path, ...]],
    prepare: Callable[[str], Pair],
    size: tuple[int, int],
    *,
    root: Path | None = None,
    workers: int | None = None,
) -> PixelCache | None:
    """All images of a set, decoded and resized once by `prepare`, 4 bytes a pixel; the place and size are printed.

    `files` names the files of each image. The entry serves as long as their content is the same: by size and times,
    where these differ by sha256. `workers` threads decode (default: one for each core this process may use). Returns
    None, and says so, where the disk has no room for it. What `prepare` raises leaves no entry.
    """
    root = cache_root() if root is None else root
    ids = list(files)
    height, width = size
    key = hashlib.sha256("\n".join([str(RULE), *(f"{i} {p}" for i in ids for p in files[i])]).encode()).hexdigest()
    folder = root / f"{name}-{height}x{width}-{key[:8]}"

    def read(folder: Path) -> PixelCache | None:
        try:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            found = PixelCache(folder, ids)
        except (OSError, ValueError):
            return None
        return found if _unchanged(folder / "manifest.json", manifest, files) else None

    def make(unfinished: Path) -> None:
        stamps = {}
        pixels = np.lib.format.open_memmap(
            unfinished / "pixels.npy", mode="w+", dtype=np.uint8, shape=(len(ids), 4, height, width)
        )

        def work(image_id: str) -> tuple[list, Pair]:
            # The stamps first: a file that changes while it is read is then seen to have changed.
            return [_stamp(path) for path in files[image_id]], prepare(image_id)

        for position, image_id, (found, (image, labels)) in _in_threads(ids, work, workers, f"decoding {name}"):
            pixels[position, :3], pixels[position, 3] = image.numpy(), labels.numpy()
            stamps[image_id] = found
        pixels.flush()
        write_atomically(unfinished / "manifest.json", json.dumps({"rule": RULE, "stamps": stamps}))

    needed = len(ids) * 4 * height * width
    if not (folder / "manifest.json").exists():
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
        if needed > 0.9 * free:
            print(
                f"{name}: {needed / 1e9:.1f} GB of decoded images do not fit in {root} ({free / 1e9:.1f} GB free); "
                "every image is decoded each time it is used."
            )
            return None
        print(f"{name}: {len(ids)} images are decoded once, to {folder} ({needed / 1e6:.1f} MB).", flush=True)
    return make_once(folder, read, make)


FEWEST = 2000
"""Images from which on what a scan found is remembered; fewer are scanned in seconds."""


def remembered(
    key: str, files: Mapping[str, tuple[Path, ...]], work: Callable[[str], Any], *, root: Path | None = None
) -> dict[str, Any]:
    """What `work` says of each image, as JSON can hold it, kept while the files have the sizes and times of then.

    `key` names what else the answers depend on. A set of fewer than FEWEST images is worked through each time, with
    nothing written. A file that cannot be written or read costs the time and nothing else.
    """
    if len(files) < FEWEST:
        return {image_id: work(image_id) for image_id in files}
    path = (cache_root() if root is None else root) / f"{key}-scan{RULE}.json"
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        known = {}
    found, changed = {}, False
    for image_id, paths in tqdm(files.items(), f"scanning {key}", unit="image", leave=False, disable=None):
        times = [str(paths[0]), *(_times(p) for p in paths)]
        if known.get(image_id, [None])[0] != times:
            known[image_id], changed = [times, work(image_id)], True
        found[image_id] = known[image_id][1]
    if changed:
        with contextlib.suppress(OSError):
            write_atomically(path, json.dumps(known))
    return found


def _in_threads(
    ids: Sequence[str], work: Callable[[str], Any], workers: int | None, title: str
) -> Iterator[tuple[int, str, Any]]:
    """Each id's position, name and result, in order; a bounded number of results waits in memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(workers or cores) as pool:
        progress = tqdm(total=len(ids), desc=title, unit="image", leave=False, disable=None)
        for start in range(0, len(ids), 64):
            part = ids[start : start + 64]
            for position, (image_id, result) in enumerate(zip(part, pool.map(work, part)), start=start):
                yield position, image_id, result
                progress.update()
        progress.close()


def _stamp(path: Path) -> list[int | str]:
    with path.open("rb") as file:
        return [*_times(path), hashlib.file_digest(file, "sha256").hexdigest()]


def _times(path: Path) -> list[int]:
    """What changes with every write: size, and the times of the last change to the content and to the file."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _unchanged(where: Path, manifest: dict[str, Any], files: Mapping[str, tuple[Path, ...]]) -> bool:
    """Whether an entry was made of what these files hold now. Files that were only moved or touched are noted."""
    if manifest["rule"] != RULE:
        return False
    touched = False
    for image_id, paths in files.items():
        for at, (path, stamp) in enumerate(zip(paths, manifest["stamps"][image_id])):
            if not path.is_file():
                return False
            if _times(path) != stamp[:3]:
                manifest["stamps"][image_id][at], touched = _stamp(path), True
                if manifest["stamps"][image_id][at][3] != stamp[3]:
                    return False
    if touched:
        write_atomically(where, json.dumps(manifest))
    return True
