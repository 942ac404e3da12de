"""What was computed once from the files of a data set, kept on disk: decoded and resized images, what each shows.

Everything lies below `data/cache` of the project and may be deleted at any time. An entry is tied to the files it was
made from, appears whole or not at all, and is made by one process while others wait.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int16, UInt8
from torch import Tensor
from tqdm import tqdm

from fsslib.files import make_once, write_atomically
from fsslib.paths import project_root

RULE = 4
"""Number of the rule by which images are read, resized and laid out: entries of another rule are made anew."""


def cache_root() -> Path:
    """The folder of all entries."""
    return project_root() / "data" / "cache"


class PixelCache:
    """Resized images and label maps of one data set by id, memory-mapped."""

    def __init__(self, folder: Path, ids: Sequence[str]):
        self.folder = folder
        self._position = {image_id: position for position, image_id in enumerate(ids)}
        self._images, self._labels = (np.load(folder / f"{what}.npy", mmap_mode="r") for what in ("images", "labels"))

    def __getitem__(self, image_id: str) -> tuple[UInt8[Tensor, "3 H W"], Int16[Tensor, "H W"]]:
        position = self._position[image_id]
        return tuple(torch.from_numpy(np.array(found[position])) for found in (self._images, self._labels))


def pixel_cache(
    name: str,
    files: Mapping[str, tuple[Path, ...]],
    prepare: Callable[[str], tuple[Tensor, Tensor]],
    size: tuple[int, int],
    *,
    about: str = "",
    root: Path | None = None,
) -> PixelCache | None:
    """All images of a set, decoded and resized once by `prepare`, 5 bytes a pixel; the place and size are printed.

    `files` names the files of each image, `about` says what else the pixels depend on. The entry serves as long as the
    files have the sizes and times of then. A thread for each core that this process may use decodes. Returns None, and
    says so, where the disk has no room for it. What `prepare` raises leaves no entry.
    """
    root = cache_root() if root is None else root
    ids, (height, width) = list(files), size
    listed = "\n".join([f"{RULE} {about}", *(f"{i} {p}" for i in ids for p in files[i])])
    folder = root / f"{name}-{height}x{width}-{hashlib.sha256(listed.encode()).hexdigest()[:8]}"

    def read(folder: Path) -> PixelCache | None:
        try:
            stamps = json.loads((folder / "manifest.json").read_bytes())
            same = all([_times(path) for path in files[i]] == stamps[i] for i in ids)
            return PixelCache(folder, ids) if same else None
        except (OSError, ValueError, KeyError):
            return None

    def make(unfinished: Path) -> None:
        def empty(what: str, kind: type, shape: tuple[int, ...]) -> np.memmap:
            return np.lib.format.open_memmap(unfinished / f"{what}.npy", mode="w+", dtype=kind, shape=shape)

        images = empty("images", np.uint8, (len(ids), 3, height, width))
        labels = empty("labels", np.int16, (len(ids), height, width))

        def work(position: int) -> list[list[int]]:
            # The times first: a file that changes while it is read is then seen to have changed.
            times = [_times(path) for path in files[ids[position]]]
            images[position], labels[position] = (tensor.numpy() for tensor in prepare(ids[position]))
            return times

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        with ThreadPoolExecutor(cores) as pool:
            done = tqdm(pool.map(work, range(len(ids))), f"decoding {name}", len(ids), leave=False, disable=None)
            stamps = dict(zip(ids, done))
        images.flush()
        labels.flush()
        write_atomically(unfinished / "manifest.json", json.dumps(stamps))

    needed = len(ids) * 5 * height * width
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


def _times(path: Path) -> list[int]:
    """What changes with every write: size, and the times of the last change to the content and to the file."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
