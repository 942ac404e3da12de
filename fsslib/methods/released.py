"""The authors' released checkpoints. Which of their tensors is which of ours stands with each method."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fsslib.blocks.backbones import WeightsError, WeightsRecord, read_tensors, tensors_sha256, what_does_not_fit
from fsslib.methods.base import Method, ReleasedNames


def rename(state: Mapping[str, Tensor], pairs: ReleasedNames) -> dict[str, Tensor]:
    """The tensors under our names: the first pair whose first part a name begins with says what it begins with here.

    A second part of None drops the tensor; a leading "module." (of DataParallel) is no part of a name. A name that no
    pair knows, or two that become one, is a WeightsError.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        bare = name.removeprefix("module.")
        pair = next((pair for pair in pairs if bare.startswith(pair[0])), None)
        if pair is None:
            raise WeightsError(f"The released checkpoint has no tensor {name!r}: is it of another method or backbone?")
        if pair[1] is None:
            continue
        ours = pair[1] + bare.removeprefix(pair[0])
        if ours in renamed:
            raise WeightsError(f"{name!r} and another tensor both become {ours!r}; a checkpoint has each once.")
        renamed[ours] = tensor
    return renamed


def load_released(method: Method, path: str | Path) -> None:
    """Fill a method from a checkpoint that its authors released: every tensor of both, or a WeightsError.

    No code in the file is run; where the weights came from is noted in `method.backbone.weights`. The method must be
    built as the authors built theirs: `build_method("panet", backbone="vgg16")`,
    `build_method("pfenet", backbone="resnet50", legacy_backbone=True)`, `build_method("hsnet", backbone="resnet50")`.
    SG-One and RtD released none to map.
    """
    kind = type(method).__name__
    if not method.released_names:
        raise WeightsError(f"No released checkpoint of {kind} is known; PANet, PFENet and HSNet have one.")
    found = read_tensors(Path(path))
    try:
        method.load_state_dict(rename(found, method.released_names))
    except RuntimeError as error:
        raise WeightsError(
            f"{path} does not fit this {kind} on {method.backbone.name}: {what_does_not_fit(error)} "
            "Build the method as the checkpoint's authors did; see `load_released`."
        ) from error
    method.backbone.weights = WeightsRecord(Path(path).name, tensors_sha256(found), len(found))
