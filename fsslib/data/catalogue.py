"""The data sets of `fsslib.data.sources` on this machine: which are there, and how the others get there."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from fsslib.data.fetch import fetch
from fsslib.data.sources import ENTRIES, Entry
from fsslib.files import DataError
from fsslib.paths import data_root

CATALOGUE = {entry.name: entry for entry in ENTRIES}
"""All data sets by name, which is what `fsslib data get` takes."""


def find(entry: Entry, root: Path) -> str:
    """What of a data set is below the data folder `root`, in words. Raises DataError naming what is missing."""
    if entry.folder is None:
        return f"drawn by the program, {entry.about}"
    counts = [sum(1 for path in root.glob(pattern) if path.name[0] != ".") for pattern in entry.files]
    if lacking := [pattern for pattern, count in zip(entry.files, counts) if not count]:
        raise DataError(f"there is no {root / lacking[0]}")
    return f"{counts[0]:,} files {entry.files[0]}"


def report(root: Path | None = None) -> str:
    """Which data sets are there; for what is missing size, licence and the next step."""
    set_by = "FSSLIB_DATA" if os.environ.get("FSSLIB_DATA") else "the default; FSSLIB_DATA names another"
    root = data_root() if root is None else root
    lines = [f"Data sets below {root} ({set_by})"]
    for entry in CATALOGUE.values():
        try:
            lines.append(f"  {entry.name:14} found: {find(entry, root)}")
        except DataError as error:
            step = f"To get it: fsslib data get {entry.name}" if entry.archives else _by_hand(entry, root)
            text = f"missing: {error}\n{entry.title}, {entry.about}\n{entry.size}; licence: {entry.licence}\n{step}"
            lines.append(f"  {entry.name:14} " + text.replace("\n", "\n" + 17 * " "))
    return "\n".join(lines)


def get(name: str, *, root: Path | str | None = None) -> None:
    """Fetch a data set to the data folder `root` (default: `data_root()`), and say what is there.

    One that is there already is left alone. Raises DataError for an unknown name, with the steps to take for a data set
    that its site gives only to people who log in, and as `fsslib.data.fetch.fetch`.
    """
    if name not in CATALOGUE:
        raise DataError(f"There is no data set {name!r}. There are: {', '.join(CATALOGUE)}.")
    entry, root = CATALOGUE[name], data_root() if root is None else Path(root)
    try:
        found = find(entry, root)
    except DataError as missing:
        if not entry.archives:
            raise DataError(
                f"{entry.title} is not there ({missing}), and its site does not let a program fetch it. Its licence: "
                f"{entry.licence}.\n{_by_hand(entry, root)}"
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
            _resolve(entry.finish)(root)
        try:
            found = find(entry, root)
        except DataError as error:
            raise DataError(
                f"{entry.title} is not whole: {error}. What was there before was left as it is: move "
                f"{root / entry.folder} away, and call again."
            ) from error
    print(f"{name}: {found}")


def _by_hand(entry: Entry, root: Path) -> str:
    return entry.steps.format(folder=root / entry.folder)


def _resolve(address: str) -> Any:
    """What stands under a name in a module, "module:NAME", which is imported only then."""
    module, _, name = address.partition(":")
    return getattr(import_module(module), name)
