"""Writing files whole or not at all, and what is said of files that are not as they should be. No torch in here."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

Made = TypeVar("Made")


class DataError(ValueError):
    """A data set is missing, damaged or too small for what was asked; the message names the file and the next step."""


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` at the end: no reader and no crash ever sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # a temporary file is for its owner only; this one is for whom the folder is
        os.replace(temporary, path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_atomically(path: Path | str, text: str) -> None:
    """Replace the file `path` by `text`, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def make_once(folder: Path, read: Callable[[Path], Made | None], make: Callable[[Path], None]) -> Made:
    """What `read` finds in a folder; where it finds None, `make` fills an empty folder that then takes its place.

    A process that is killed in `make` leaves a hidden folder behind that the next one clears, and nothing that `read`
    could take for whole. Processes that want the same folder wait for one of them, at an empty lock beside it that
    stays. Raises OSError as the disk does, and what `make` raises, after which the hidden folder is gone.
    """
    if (found := read(folder)) is not None:
        return found
    import filelock  # not for every command that only wants to be told of a DataError

    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.with_name(f"{folder.name}.lock")):
        # Another process may have made it while this one waited.
        if (found := read(folder)) is not None:
            return found
        unfinished = folder.with_name(f".{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            make(unfinished)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unfinished, folder)
    return read(folder)
