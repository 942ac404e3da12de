"""Backbones: networks that turn images into feature maps, from random or from pretrained weights.

Three families: `tiny`, our own four stages for 64-pixel images, trained from scratch in seconds; torchvision's ResNets,
whose late strides can be traded for dilation; and torchvision's VGG16 in the layout that SG-One and PANet use. Every
convolution and pool of all three maps a side of n pixels to ceil(n / its stride), so a feature map of stride s is
ceil(H / s) x ceil(W / s) whatever the image size. The one exception is VGG16 in torchvision's own layout (stride 32),
whose pools round down.

Pretrained weights are all there or refused: each tensor of the network must be found in the file with its shape, each
tensor of the file must belong to the network or to a part of it that was cut off, and what was loaded is hashed.

torchvision takes seconds to import, so only what needs it does.
"""

import hashlib
import re
import sys
import textwrap
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fsslib import paths
from fsslib.blocks import STAGE_STRIDES

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

BACKBONES = tuple(STAGE_STRIDES)


class WeightsError(ValueError):
    """Weights that cannot be found, read or fitted to the network; the message says which and what to do."""


@dataclass(frozen=True)
class WeightsRecord:
    """Where a backbone's weights came from, for the record of a run.

    `source` is "none", a member of torchvision's weights enum or a file name; `sha256` is the hash of the `loaded`
    tensors (see `tensors_sha256`), None when there are none. `missing` can only name batch counters, `unexpected` only
    tensors of parts that were cut off (classifier, later stages): anything else is a WeightsError. Both use
    torchvision's tensor names.
    """

    source: str = "none"
    sha256: str | None = None
    loaded: int = 0
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()


class Backbone(nn.Module):
    """Images to feature maps: one per entry of `stages`, finest first, with `channels` and `strides` beside it.

    `network` holds the stages by name, so a method can run or edit one of them (`backbone.network.layer4(features)`).
    With `frozen_batch_norm`, batch norm uses its stored statistics whatever mode the model is in, and its scale and
    shift take no gradient. Made by `build_backbone`.
    """

    def __init__(
        self,
        name: str,
        network: nn.Sequential,
        stages: tuple[str, ...],
        strides: tuple[int, ...],
        weights: WeightsRecord,
        frozen_batch_norm: bool,
    ):
        super().__init__()
        self.name, self.network, self.stages, self.strides = name, network, stages, strides
        self.channels = tuple(self.channels_behind(stage) for stage in stages)
        self.weights, self.frozen_batch_norm = weights, frozen_batch_norm
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)
        if frozen_batch_norm:
            for norm in self._batch_norms():
                norm.requires_grad_(False)
        self.train()

    @property
    def first_stage(self) -> str:
        """The name of the first stage, wanted as a result or not."""
        return next(iter(STAGE_STRIDES[self.name]))

    def channels_behind(self, stage: str) -> int:
        """Channels of a stage's output. Raises ValueError for a stage the network does not have."""
        there = [name for name, _ in self.network.named_children() if name in STAGE_STRIDES[self.name]]
        if stage not in there:
            raise ValueError(f"{self.name} has no stage {stage!r} here; it has {', '.join(there)}.")
        return _convolutions(self.network.get_submodule(stage))[-1].out_channels

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"] | Mapping[str, Tensor],
        behind: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Feature maps [B, channels, ceil(H / stride), ceil(W / stride)] of RGB images in [0, 1], normalised here.

        `behind` names stages with a function each, which a stage's output goes through before anything else sees it.
        In place of images it takes what `frozen` gave of them, and goes on from there.
        """
        given = images if isinstance(images, Mapping) else {}
        features, maps = None if given else (images - self.mean) / self.std, []
        for name, module in self.network.named_children():
            if name in given:
                features = given[name]
            elif features is not None:
                features = module(features)
            if behind is not None and name in behind:
                features = behind[name](features)
            if name in self.stages:
                maps.append(features)
        return tuple(maps)

    def frozen(self, images: Float[Tensor, "B 3 H W"], until: str | None = None) -> dict[str, Tensor]:
        """By name what the first stages give, `until` at the latest, that learn nothing and know an image alone: of the
        wanted ones, and the last.
        """
        features, found = (images - self.mean) / self.std, {}
        for name, module in self.network.named_children():
            live = not self.frozen_batch_norm and any(isinstance(part, _BatchNorm) for part in module.modules())
            if live or until in found or any(parameter.requires_grad for parameter in module.parameters()):
                break
            features = module(features)
            if name in STAGE_STRIDES[self.name]:
                found[name] = features
        return {name: found[name] for name in found if name in (*self.stages, [*found][-1])}

    def train(self, mode: bool = True) -> "Backbone":
        """Switch to training mode, all but frozen batch norm: the call of a parent's `train()` ends up here too."""
        super().train(mode)
        if self.frozen_batch_norm:
            for norm in self._batch_norms():
                norm.eval()
        return self

    def _batch_norms(self) -> list[_BatchNorm]:
        return [module for module in self.network.modules() if isinstance(module, _BatchNorm)]


def pointwise(
    x: Float[Tensor, "B C _ _"], kernel: Float[Tensor, "D C"], bias: Tensor | None = None, stride: int = 1
) -> Float[Tensor, "B D h w"]:
    """The convolution with a kernel of one place, to which a dilation means nothing. But undilated, with one thread and
    fewer than 16 images, torch keeps it from oneDNN, and maps of 16 x 16 places or more take up to twice as long.
    """
    slow = x.device.type == "cpu" and x.shape[-2] * x.shape[-1] >= 256
    return F.conv2d(x, kernel[:, :, None, None], bias, stride, dilation=2 if slow else 1)


class _Pointwise(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight.flatten(1), self.bias, self.stride[0])


def build_backbone(
    name: str,
    *,
    weights: str | Path = "none",
    stages: Sequence[str] | None = None,
    output_stride: int | None = None,
    frozen_batch_norm: bool | None = None,
) -> Backbone:
    """A backbone by name, cut behind its last wanted stage.

    - `weights`: "none" (random), "imagenet" (torchvision's IMAGENET1K_V1, downloaded once), or a file: a state dict
      with torchvision's tensor names, looked for as given, then in `weights/` below the data root, then among the
      shipped ones (`tiny-toy-fold0.pt`: tiny, trained on the base classes of that fold of the toy world).
    - `stages`: default the last three. `stage1..4` of tiny, `layer1..4` of a ResNet, `block1..5` of VGG16, where a
      block ends with its pool.
    - `output_stride`: 8 by default. ResNets: 16 or 32 dilate less; HSNet uses 32, PFENet 8 (on a ResNet with another
      stem than torchvision's). VGG16: 32 has torchvision's pools, as HSNet. tiny is fixed at 4.
    - `frozen_batch_norm`: default only for a ResNet with loaded weights. PFENet's released code leaves the batch norm
      of its frozen backbone in training mode, so that its statistics drift with every episode.

    Raises ValueError for an unknown name, stage or stride, WeightsError for weights that do not fit.
    """
    if name not in STAGE_STRIDES:
        raise ValueError(f"Unknown backbone {name!r}; there are {', '.join(BACKBONES)}.")
    is_resnet, known = name.startswith("resnet"), tuple(STAGE_STRIDES[name])
    wanted = known[-3:] if stages is None else stages
    if isinstance(wanted, str) or not wanted or set(wanted) - set(known) or len(set(wanted)) != len(wanted):
        raise ValueError(f"stages of {name} are one or more of {known}, each once; found {stages!r}.")
    stages = tuple(stage for stage in known if stage in wanted)
    possible_strides = (8, 16, 32) if is_resnet else {"vgg16": (8, 32), "tiny": (4,)}[name]
    output_stride = possible_strides[0] if output_stride is None else output_stride
    if output_stride not in possible_strides:
        raise ValueError(f"{name} has output_stride {' or '.join(map(str, possible_strides))}; found {output_stride}.")

    if is_resnet:
        network = _resnet(name, output_stride)
    elif name == "vgg16":
        network = _vgg16(output_stride)
    else:
        network = _tiny()
    whole = set(_torchvision_names(network))
    network = network[: list(dict(network.named_children())).index(stages[-1]) + 1]
    record = _load(name, network, weights, cut_off=whole - set(_torchvision_names(network)))

    strides = tuple(min(STAGE_STRIDES[name][stage], output_stride) for stage in stages)
    frozen = is_resnet and record.loaded > 0 if frozen_batch_norm is None else frozen_batch_norm
    return Backbone(name, network, stages, strides, record, frozen)


def replace_stride_with_dilation(stage: nn.Module, dilation: int) -> None:
    """Make a stage keep its input's grid: strides become 1, its 3x3 convolutions look `dilation` grid points away.

    The convolution that lost its stride still reads the undivided grid and gets half the dilation. So the strided map
    is exactly a subsample of the dense one, and pretrained weights keep their meaning. torchvision does the same for
    bottleneck blocks and refuses basic blocks; this edits the built stage and leaves the weights untouched. PFENet's
    released code gives that one convolution the full dilation as well.
    """
    for convolution in _convolutions(stage):
        strided = convolution.stride != (1, 1)
        convolution.stride = (1, 1)
        if convolution.kernel_size == (3, 3):
            reach = dilation // 2 if strided else dilation
            convolution.dilation = convolution.padding = (reach, reach)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of tensors by name: sha256 over the sorted names, each followed by the tensor's bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tiny() -> nn.Sequential:
    """Four stages for 64-pixel images: a 16x16 grid of which each point sees 33 pixels.

    The first convolution sees 5x5 pixels, enough for a texture's edge. The last has no ReLU: prototypes are compared by
    cosine, and features of both signs can point apart by more than 90 degrees (PANet does the same).
    """

    def convolution(inputs, outputs, *, stride=1, dilation=1):
        return nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False)

    def normalise(channels):
        return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]

    stages = OrderedDict(
        stage1=nn.Sequential(nn.Conv2d(3, 32, 5, 2, padding=2, bias=False), *normalise(32)),
        stage2=nn.Sequential(convolution(32, 64, stride=2), *normalise(64)),
        stage3=nn.Sequential(convolution(64, 64), *normalise(64)),
        stage4=nn.Sequential(convolution(64, 64, dilation=2), nn.BatchNorm2d(64)),
    )
    return nn.Sequential(stages)


def _resnet(name: str, output_stride: int) -> nn.Sequential:
    """torchvision's ResNet without its classifier, dilated where a stage would exceed `output_stride`."""
    import torchvision

    resnet = torchvision.models.get_model(name, weights=None)
    for stage, stride in STAGE_STRIDES[name].items():
        if stride > output_stride:
            replace_stride_with_dilation(resnet.get_submodule(stage), stride // output_stride)
    for convolution in _convolutions(resnet):
        if convolution.kernel_size == (1, 1):
            convolution.__class__ = _Pointwise
    return nn.Sequential(OrderedDict((key, m) for key, m in resnet.named_children() if key not in ("avgpool", "fc")))


def _vgg16(output_stride: int) -> nn.Sequential:
    """torchvision's VGG16 convolutions in five blocks, each with its pool, without the classifier.

    As in SG-One's released code the pools are 3x3 with padding 1, and the last two have stride 1; torchvision's, which
    `output_stride` 32 leaves as they are, are 2x2 with stride 2. Random weights are drawn as torchvision draws them.
    """
    import torchvision

    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    for convolution in _convolutions(features):
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(convolution.bias)
    pools = [index for index, module in enumerate(features) if isinstance(module, nn.MaxPool2d)]
    for index, stride in zip(pools, (2, 2, 2, 1, 1), strict=True):
        if output_stride == 8:
            features[index] = nn.MaxPool2d(kernel_size=3, stride=stride, padding=1)
    starts = [0, *(index + 1 for index in pools[:-1])]
    blocks = (features[start : pool + 1] for start, pool in zip(starts, pools, strict=True))
    return nn.Sequential(OrderedDict(zip(STAGE_STRIDES["vgg16"], blocks, strict=True)))


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def _torchvision_names(network: nn.Module) -> dict[str, str]:
    """torchvision's name of each tensor of the network -> its name here; they differ in VGG16's blocks only."""
    return {re.sub(r"^block\d\.", "features.", key): key for key in network.state_dict()}


def _load(name: str, network: nn.Sequential, weights: str | Path, cut_off: set[str]) -> WeightsRecord:
    """Fill the network from `weights` and say what was loaded; `cut_off` names the tensors that are not wanted."""
    if weights == "none":
        return WeightsRecord()
    source, found = _download(name) if weights == "imagenet" else _find(weights)
    theirs_to_ours, own = _torchvision_names(network), network.state_dict()
    missing = tuple(key for key in theirs_to_ours if key not in found)
    unexpected = tuple(key for key in found if key not in theirs_to_ours)
    dropped = {key for key in unexpected if key in cut_off or key.startswith(("fc.", "classifier."))}
    asked = {theirs_to_ours.get(key, key): tensor for key, tensor in found.items() if key not in dropped}
    counters = {key: own[key] for key in own if key.endswith("num_batches_tracked")}
    other_kind = [k for k in own.keys() & asked if own[k].is_floating_point() != asked[k].is_floating_point()]
    try:
        if other_kind:
            raise RuntimeError(f"\nIntegers where fractions belong, or fractions for integers: {sorted(other_kind)}.")
        network.load_state_dict(counters | asked)
    except RuntimeError as error:
        raise WeightsError(
            f"{source} does not fit {name} with {', '.join(dict(network.named_children()))}. "
            f"{what_does_not_fit(error)} Ask for the stages that it holds, pass weights of the whole {name}, or build "
            "the backbone that these belong to."
        ) from error
    loaded = {key: network.state_dict()[ours] for key, ours in theirs_to_ours.items() if key in found}
    return WeightsRecord(source, tensors_sha256(loaded), len(loaded), missing, unexpected)


def what_does_not_fit(error: RuntimeError) -> str:
    """What `load_state_dict` said: missing, unknown, of another shape; the beginning of each and at most four."""
    return " ".join(textwrap.shorten(line, 200, placeholder=" ...") for line in str(error).splitlines()[1:5])


def _download(name: str) -> tuple[str, Mapping[str, Tensor]]:
    """torchvision's IMAGENET1K_V1 weights, from its cache or its server."""
    if name == "tiny":
        raise WeightsError("There are no ImageNet weights of tiny: it is trained from scratch, with weights='none'.")
    import torchvision

    member = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    try:
        return str(member), member.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
    except Exception as error:  # no network, no space, a wrong hash, a damaged cache
        file = member.url.rsplit("/", 1)[-1]
        raise WeightsError(
            f"The ImageNet weights of {name} could not be fetched ({_brief(error)}). Fetch {member.url} on a "
            f"machine that can, put the file into {paths.data_root() / 'weights'} and pass weights={file!r}. "
            f"If {Path(torch.hub.get_dir()) / 'checkpoints' / file} exists, it is damaged: delete it."
        ) from error


def _find(weights: str | Path) -> tuple[str, Mapping[str, Tensor]]:
    """Name and tensors of a file: as given, in the data root's `weights`, or shipped."""
    given = Path(weights).expanduser()
    places = [given, *(shelf / "weights" / given for shelf in (paths.data_root(), paths.shipped("data")))]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise WeightsError(
            f"No weights file at {' or '.join(map(str, dict.fromkeys(places)))}. Put it there, or pass weights='none' "
            "(random), 'imagenet' (download) or the path of a state dict."
        )
    return path.name, read_tensors(path)


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a file, by itself or as its entry "state_dict"; no code in it is run. Else a WeightsError."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can trip the reader anywhere
        raise WeightsError(
            f"{path} cannot be read as weights ({_brief(error)}). It is not there, cut, damaged or no file of tensors: "
            "fetch it again, or save one with torch.save(model.state_dict(), ...)."
        ) from error
    tensors = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(tensors, Mapping) or not tensors or not all(isinstance(t, Tensor) for t in tensors.values()):
        inside = f" with {len(found)} entries {list(found)[:3]}" if isinstance(found, Mapping) else ""
        raise WeightsError(
            f"{path} holds no state dict (tensors by name) but a {type(found).__name__}{inside}. "
            "Save model.state_dict()."
        )
    return tensors


def _brief(error: Exception) -> str:
    """Kind and first line of an error, at most 100 characters."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:100]
