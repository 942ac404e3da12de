"""The authors' released checkpoints: which of their tensors is which of ours. SG-One and RtD released none to map."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fsslib.blocks.backbones import WeightsError, WeightsRecord, tensors_sha256
from fsslib.methods.base import Method

Pairs = Sequence[tuple[str, str | None]]


def _panet() -> Pairs:
    """kaixin96/PANet: every second module of `features` is a block, every second of a block a convolution."""
    starts, convolutions = (0, 5, 10, 17, 24), (2, 2, 3, 3, 3)
    return [
        (f"encoder.backbone.features.{2 * block}.{2 * c}.", f"backbone.network.block{block + 1}.{start + 2 * c}.")
        for block, (start, count) in enumerate(zip(starts, convolutions))
        for c in range(count)
    ]


def _hsnet() -> Pairs:
    """juhongm999/hsnet: torchvision's network whole, classifier and all, and blocks of three modules each."""
    starts, ends = (0, 5, 10, 17, 24), (5, 10, 17, 24, 31)
    pairs: list[tuple[str, str | None]] = [("backbone.fc.", None), ("backbone.classifier.", None)]
    for block, places in enumerate(map(range, starts, ends), start=1):
        pairs += [(f"backbone.features.{place}.", f"backbone.network.block{block}.{place}.") for place in places]
    pairs.append(("backbone.", "backbone.network."))
    parts = {"4": "encoders.0", "3": "encoders.1", "2": "encoders.2", "4to3": "mixers.0", "3to2": "mixers.1"}
    for theirs, ours in parts.items():
        for block in range(3):
            first, second = (f"hpn_learner.encoder_layer{theirs}.{3 * block + n}." for n in (0, 1))
            here = f"learner.{ours}.{block}"
            pairs += [(f"{first}conv1.", f"{here}.query."), (f"{first}conv2.", f"{here}.support.")]
            pairs.append((second, f"{here}.norm."))
    places = {"1.0": 0, "1.2": 2, "2.0": 5, "2.2": 7}
    return [*pairs, *((f"hpn_learner.decoder{old}.", f"learner.decoder.{new}.") for old, new in places.items())]


RELEASED: dict[str, Pairs] = {
    "PANet": _panet(),
    "HSNet": _hsnet(),
    # dvlab-research/PFENet, on its own ResNet: PFENet(..., legacy_backbone=True).
    "PFENet": [
        ("layer0.7.", "backbone.network.bn1."),
        ("layer0.", "backbone.network.conv1."),
        *((f"layer{n}.", f"backbone.network.layer{n}.") for n in (1, 2, 3, 4)),
        ("down_query.", "query_reduction."),
        ("down_supp.", "support_reduction."),
        ("init_merge.", "enrichment."),
        ("alpha_conv.", "between_scales."),
        ("beta_conv.", "within_scale."),
        ("inner_cls.", "side_classifiers."),
        ("res1.", "fusion."),
        ("res2.", "refinement."),
        ("cls.", "classifier."),
    ],
}
"""For each class of methods the pairs of `rename`."""


def rename(state: Mapping[str, Tensor], pairs: Pairs) -> dict[str, Tensor]:
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
    """
    kind = type(method).__name__
    if kind not in RELEASED:
        raise WeightsError(f"No released checkpoint of {kind} is known; there are maps for {', '.join(RELEASED)}.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can trip the reader anywhere
        raise WeightsError(
            f"{path} cannot be read as weights ({type(error).__name__}). Is it there and whole? Fetch it again."
        ) from error
    if isinstance(found, Mapping):
        found = found.get("state_dict", found)
    if not isinstance(found, Mapping) or not found or not all(isinstance(t, Tensor) for t in found.values()):
        raise WeightsError(f"{path} holds no state dict, neither by itself nor as its entry 'state_dict'.")
    try:
        method.load_state_dict(rename(found, RELEASED[kind]))
    except RuntimeError as error:
        raise WeightsError(
            f"{path} does not fit this {kind} on {method.backbone.name}: {str(error).splitlines()[1].strip()[:200]} "
            "Build the method as the checkpoint's authors did; see `load_released`."
        ) from error
    method.backbone.weights = WeightsRecord(Path(path).name, tensors_sha256(found), len(found))
