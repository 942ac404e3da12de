"""The data sets of data_sets.yaml on this machine: which are there, and how the others get there."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path

import yaml

from fsslib.data import SPELLINGS
from fsslib.data.fetch import Archive, fetch
from fsslib.files import DataError
from fsslib.paths import data_root


@dataclass(frozen=True)
class Entry:
    """A data set; data_sets.yaml says what its entries mean. `folder` is None when the program draws it."""

    name: str
    title: str
    about: str
    licence: str = ""
    home: str = ""
    papers: str = ""
    folder: str | None = None
    images: int | None = None
    files: Sequence[str] = ()
    archives: tuple[Archive, ...] = ()
    finish: str | None = None
    steps: str | None = None
    gigabytes: float | None = None

    @property
    def size(self) -> str:
        """The size of the download in words."""
        sizes = [archive.gigabytes for archive in self.archives] or [self.gigabytes]
        known = sum(size for size in sizes if size)
        if not known:
            return "size not known"
        return f"{known:.2f} GB" + (f" and {sizes.count(None)} of unknown size" if None in sizes else "")


def _read() -> Iterator[tuple[str, Entry]]:
    text = (resources.files("fsslib.data") / "data_sets.yaml").read_text(encoding="utf-8")
    for name, facts in yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)).items():
        archives = tuple(Archive(**archive) for archive in facts.pop("archives", ()))
        yield name, Entry(name, archives=archives, **facts)


CATALOGUE: Mapping[str, Entry] = dict(_read())
"""All data sets by name, which is what `fsslib data get` takes."""


def entry_named(name: str) -> Entry:
    """A data set by name. Raises DataError listing those there are."""
    name = SPELLINGS.get(name, name)
    if name not in CATALOGUE:
        raise DataError(f"There is no data set {name!r}. There are: {', '.join(CATALOGUE)}.")
    return CATALOGUE[name]


def find(entry: Entry, root: Path) -> str:
    """What of a data set is below the data folder `root`, in words. Raises DataError naming what is missing."""
    if entry.folder is None:
        return f"drawn by the program, {entry.about}"
    counts = [sum(1 for path in root.glob(pattern) if path.name[0] != ".") for pattern in entry.files]
    if lacking := [pattern for pattern, count in zip(entry.files, counts) if not count]:
        raise DataError(f"there is no {root / lacking[0]}")
    return f"{counts[0]:,} files {entry.files[0]}"


def next_step(name: str, root: Path) -> str:
    """What to do to get a data set below the data folder `root`, for messages."""
    # A variant of a set begins with its name.
    entry = CATALOGUE.get(name) or next((e for e in CATALOGUE.values() if e.folder and name.startswith(e.name)), None)
    drawn = 'The toy world (data "toy") needs no download.'
    if entry is None or entry.folder is None:
        return drawn
    folder, files = root / entry.folder, " and ".join(str(root / pattern) for pattern in entry.files)
    steps = f"To get it: fsslib data get {entry.name}. Or unpack what {entry.home} offers, as {files}.\n"
    steps = entry.steps.format(folder=folder) if entry.steps else steps
    there = f"What is there in part stays as it is: move {folder} away first. " if folder.exists() else ""
    return f"{steps}{there}Set FSSLIB_DATA to the folder that holds {entry.folder}. {drawn}"


def report(root: Path | None = None) -> str:
    """Which data sets are there; for what is missing size, licence and the next step."""
    set_by = "FSSLIB_DATA" if os.environ.get("FSSLIB_DATA") else "the default; FSSLIB_DATA names another"
    root = data_root() if root is None else root
    lines = [f"Data sets below {root} ({set_by})"]
    for entry in CATALOGUE.values():
        try:
            lines.append(f"  {entry.name:14} found: {find(entry, root)}")
        except DataError as error:
            step = f"To get it: fsslib data get {entry.name}" if entry.archives else next_step(entry.name, root)
            text = f"missing: {error}\n{entry.title}, {entry.about}\n{entry.size}; licence: {entry.licence}\n{step}"
            lines.append(f"  {entry.name:14} " + text.replace("\n", "\n" + 17 * " "))
    return "\n".join(lines)


def get(name: str, *, root: Path | str | None = None) -> None:
    """Fetch a data set to the data folder `root` (default: `data_root()`), and say what is there.

    One that is there already is left alone. Raises DataError for an unknown name, with the steps to take for a data set
    that its site gives only to people who log in, and as `fsslib.data.fetch.fetch`.
    """
    entry, root = entry_named(name), data_root() if root is None else Path(root)
    try:
        found = find(entry, root)
    except DataError as missing:
        if not entry.archives:
            raise DataError(
                f"{entry.title} is not there ({missing}), and its site does not let a program fetch it. Its licence: "
                f"{entry.licence}.\n{next_step(entry.name, root)}"
            ) from missing
        print(
            f"{entry.title}, {entry.about}, to {root}\n  home page: {entry.home}\n  licence: {entry.licence}\n"
            f"  published numbers: {entry.papers}"
        )
        try:
            fetch(entry.archives, root)
        except DataError as error:
            raise DataError(f"{error}\nTo get it by hand, see {entry.home}.") from error
        if entry.finish:
            module, _, function = entry.finish.partition(":")
            getattr(import_module(module), function)(root)
        try:
            found = find(entry, root)
        except DataError as error:
            raise DataError(
                f"{entry.title} is not whole: {error}. What was there before was left as it is: move "
                f"{root / entry.folder} away, and call again."
            ) from error
    print(f"{entry.name}: {found}")
