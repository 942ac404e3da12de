"""What was computed once from the files of a data set, kept on disk: decoded and resized images, what each shows.

Everything lies below `data/cache` of the project and may be deleted at any time. An entry is tied to the files it was
made from, appears whole or not at all, and is made by one process while others wait.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fsslib.files import make_once, write_atomically
from fsslib.paths import project_root

RULE = 4
"""Number of the rule by which images are read, resized, encoded and laid out: entries of another are made anew."""


def cache_root() -> Path:
    """The folder of all entries."""
    return project_root() / "data" / "cache"


class ArrayCache:
    """Arrays of each image of a data set by id, memory-mapped, in the order of their names."""

    def __init__(self, folder: Path, ids: Sequence[str], names: Iterable[str]):
        self.folder = folder
        self._position = {image_id: position for position, image_id in enumerate(ids)}
        self._arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}

    def __getitem__(self, image_id: str) -> tuple[Tensor, ...]:
        return tuple(found[0] for found in self.batch([image_id]).values())

    def batch(self, ids: Sequence[str]) -> dict[str, Tensor]:
        """Copies of the arrays of these images, by name."""
        at = [self._position[image_id] for image_id in ids]
        return {name: torch.from_numpy(np.stack([found[i] for i in at])) for name, found in self._arrays.items()}


def array_cache(
    name: str,
    files: Mapping[str, tuple[Path, ...]],
    prepare: Callable[[str], tuple[Tensor, ...]],
    arrays: Mapping[str, tuple[type, tuple[int, ...]]],
    *,
    about: str = "",
    does: str = "decoded",
    root: Path | None = None,
) -> ArrayCache | None:
    """What `prepare` makes of each image of a set, once; the place and size are printed.

    `files` names the files of each image, `arrays` the kind and shape of what is made, `about` says what else that
    depends on. The entry serves as long as the files have the sizes and times of then. A thread for each core that this
    process may use is at it. Returns None, and says so, where the disk has no room for it. What `prepare` raises leaves
    no entry.
    """
    root, ids = cache_root() if root is None else root, list(files)
    listed = "\n".join([f"{RULE} {about}", *(f"{i} {p}" for i in ids for p in files[i])])
    folder = root / f"{name}-{hashlib.sha256(listed.encode()).hexdigest()[:8]}"

    def read(folder: Path) -> ArrayCache | None:
        try:
            stamps = json.loads((folder / "manifest.json").read_bytes())
            same = all([_times(path) for path in files[i]] == stamps[i] for i in ids)
            return ArrayCache(folder, ids, arrays) if same else None
        except (OSError, ValueError, KeyError):
            return None

    def make(unfinished: Path) -> None:
        made = [
            np.lib.format.open_memmap(unfinished / f"{what}.npy", mode="w+", dtype=kind, shape=(len(ids), *shape))
            for what, (kind, shape) in arrays.items()
        ]

        def work(position: int) -> list[list[int]]:
            # The times first: a file that changes while it is read is then seen to have changed.
            times = [_times(path) for path in files[ids[position]]]
            for array, tensor in zip(made, prepare(ids[position]), strict=True):
                array[position] = tensor.numpy()
            return times

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        with ThreadPoolExecutor(cores) as pool:
            done = tqdm(pool.map(work, range(len(ids))), f"{name}, {does}", len(ids), leave=False, disable=None)
            stamps = dict(zip(ids, done))
        for array in made:
            array.flush()
        write_atomically(unfinished / "manifest.json", json.dumps(stamps))

    needed = len(ids) * sum(np.dtype(kind).itemsize * math.prod(shape) for kind, shape in arrays.values())
    if not (folder / "manifest.json").exists():
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
        if needed > 0.9 * free:
            print(
                f"{name}: {needed / 1e9:.1f} GB of {does} images do not fit in {root} ({free / 1e9:.1f} GB free); "
                f"every image is {does} each time it is used."
            )
            return None
        print(f"{name}: {len(ids)} images are {does} once, to {folder} ({needed / 1e6:.1f} MB).", flush=True)
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
