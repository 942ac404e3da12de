"""Checkpoints that are whole or not there: temporary file, fsync, rename. Plain tensors, loaded `weights_only`."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from fsslib.files import replacing

FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read or continued; the message says which file and what to do."""


def save_checkpoint(path: Path | str, state: dict[str, Any]) -> None:
    """Write `state` to `path` so that a crash at any moment leaves the old file or the new one, never half of one."""
    try:
        with replacing(path) as file:
            torch.save({"format": FORMAT, **state}, file)
    except OSError as error:
        raise CheckpointError(
            f"Cannot write the checkpoint {path}: {error.strerror}. Give a folder that can be written to and has room."
        ) from error


def load_checkpoint(path: Path | str, *, identity: str | None = None) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. With `identity`, refuse one that another configuration wrote.

    Raises CheckpointError for a file that is cut, is not a checkpoint, or belongs to another run.
    """
    path = Path(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint at {path}.") from None
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: it is damaged or cut short ({path.stat().st_size} bytes). "
            "Restore it, or delete it to train from the start."
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this version of fsslib (format {FORMAT}).")
    if identity is not None and state.get("identity") != identity:
        raise CheckpointError(
            f"{path} was written by another configuration ({state.get('identity')!r}, this run is {identity!r}). "
            "Use another output folder, or delete it to train from the start."
        )
    return state
