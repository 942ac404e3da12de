"""What every method is: a module that maps an episode to logits, and says how it learns, predicts and remembers."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fsslib.blocks.backbones import tensors_sha256
from fsslib.blocks.similarity import merge_ways
from fsslib.episodes import VOID, Episode


@runtime_checkable
class Optimizer(Protocol):
    """What a training step needs of an optimiser; those of torch.optim are such."""

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def step(self) -> Any: ...


Kept = Mapping[str, Tensor] | None
Optimizers = Mapping[str, Optimizer]
ReleasedNames = Sequence[tuple[str, str | None]]


@dataclass(frozen=True)
class Prediction:
    """What a method answers: a label map over {0 background, 1..N ways}, the ways it claims are there, scores."""

    labels: Int[Tensor, "B H W"]
    presence: Bool[Tensor, "B N"]
    scores: Float[Tensor, "B ways_and_background H W"] | None = None


class TrainingDiverged(FloatingPointError):
    """A loss stopped being a number. The message names the losses; `fit` adds the step and what to do."""


class Method(nn.Module):
    """Base of all methods. A subclass defines `forward`, or `encode` and `decode`; all else has a sound default.

    The training loop calls, in this order: `prepare` once, then per step `draw_batch`, `training_step` and
    `after_step`; evaluation calls `predict`. What a method remembers between steps (banks, queues, kept lists) is a
    fixed-size tensor in its state dict, so that it saves, resumes and loads with `weights_only=True`.
    """

    adapts: bool = False
    """Whether its batches are images with a fixed list of classes, from two domains, in place of episodes."""

    encodes_alike: bool = True
    """Whether `encode` gives the same for the same image in evaluation mode, so that `evaluate` may keep it."""

    keeps: str = ""
    """Of what `keep_features` keeps what `frozen` gives: "images", or "supports" too, where masks change it."""

    released_names: ReleasedNames = ()
    """What the authors' checkpoint calls its tensors, as pairs for `methods.released.rename`; none is to be had."""

    compute_dtype: torch.dtype = torch.float32
    """Set by `fit` and `evaluate`: bfloat16 runs the forward pass under autocast; parameters stay in float32."""

    @staticmethod
    def backbone_options(name: str) -> dict[str, Any]:
        """What `build_method` tells `build_backbone` beside this backbone's name and weights. Default: nothing."""
        return {}

    def forward(self, batch: Episode) -> Float[Tensor, "B ways_and_background H W"]:
        """Logits over background and the N ways, at the size of the query. Default: `decode` of what `encode` gives."""
        return self.decode(*self.encode_both(batch))

    def losses(self, batch: Episode) -> dict[str, Tensor]:
        """Named scalar losses whose sum is minimised. Default: cross-entropy of `forward`, void ignored."""
        return {"segmentation": F.cross_entropy(self(batch).float(), batch.query_labels, ignore_index=VOID)}

    def predict(self, episode: Episode) -> Prediction:
        """The answer that is scored, without a look at `query_labels`.

        Default: the largest logit; a way is present if it has a pixel.
        """
        with torch.no_grad(), self.autocast(episode.query_images.device):
            scores = self(episode).float()
        return prediction_from_scores(scores)

    def parameter_groups(self) -> dict[str, list[dict[str, Any]]]:
        """For each optimiser a list of groups {"name", "params", optional "lr_scale", "weight_decay"}.

        Default: one group of everything.
        """
        return {"segmenter": [{"name": "all", "params": [p for p in self.parameters() if p.requires_grad]}]}

    def prepare(self, classes: Sequence[int]) -> None:
        """Told once before training: the ordered table of training classes. Default: nothing to do."""

    def draw_batch(self, stream: Any, step: int) -> Any:
        """The batch of a step. Default: the stream's; a method that selects its images asks for those it kept."""
        return stream.batch(step)

    def training_step(self, batch: Any, optimizers: Optimizers) -> dict[str, float]:
        """One update on one batch; returns what to log.

        Default: sum of `losses`, backward, one step of every optimiser.
        """
        with self.autocast(next(self.parameters()).device):
            losses = self.losses(batch)
        total = check_finite(losses)
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        total.backward()
        for optimizer in optimizers.values():
            optimizer.step()
        return {name: value.item() for name, value in losses.items()}

    def after_step(self) -> None:
        """Runs after the optimisers' step, without gradients: for moving averages, memory writes. Default: nothing."""

    def encode(self, images: Tensor, masks: Tensor | None = None) -> dict[str, Tensor]:
        """What `decode` needs of images (and their masks), so that evaluation can reuse it over episodes."""
        raise NotImplementedError(f"{type(self).__name__} does not split into encode and decode.")

    def decode(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Logits from encoded supports [B, N, K, ...] and queries [B, ...]; equals `forward` on the same episode."""
        raise NotImplementedError(f"{type(self).__name__} does not split into encode and decode.")

    def encode_both(self, batch: Episode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What `decode` needs of an episode: supports with the axes [B, N, K], and queries."""
        lead, masks = batch.support_masks.shape[:3], batch.support_masks.flatten(0, 2)
        parts = (slice(-1), slice(-1, None))
        shown, asked = ({"kept": kept_of(batch, part)} if batch.kept else {} for part in parts)
        support = self.encode(batch.support_images.flatten(0, 2), masks, **shown)
        query = self.encode(batch.query_images, **asked)
        return {name: values.unflatten(0, lead) for name, values in support.items()}, query

    def frozen(self, images: Tensor, masks: Tensor | None = None) -> dict[str, Tensor]:
        """What training may keep of images, by name: see `keeps`. Default: what the backbone's frozen stages give."""
        return self.backbone.frozen(images)

    def frozen_as(self) -> str:
        """What else that depends on: the code, the network and its weights."""
        network = self.backbone.network
        return f"{type(self).frozen.__qualname__} {network} {tensors_sha256(network.state_dict())}"

    def predict_encoded(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Prediction:
        """`predict` from what `encode` gave. A method that overrides the one overrides the other."""
        return prediction_from_scores(self.decode(support, query).float())

    def measures(self, exams: Mapping[str, Any]) -> dict[str, float]:
        """What the record of a run tells of its parts beside the scores, in evaluation mode. Default: nothing."""
        return {}

    def autocast(self, device: torch.device) -> AbstractContextManager:
        if self.compute_dtype == torch.float32:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.compute_dtype)


class BinaryMethod(Method):
    """A method that answers each way against the rest: a subclass defines `encode`, `answers`, and no `forward`.

    The ways' answers are brought to the size of the query and merged by `merge_ways`; the loss is their two-class
    cross-entropy, void ignored. What `encode` gives of queries includes their "size" (`size_of`).
    """

    align_corners: bool = False
    """How answers are enlarged."""

    def answers(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Float[Tensor, "B N 2 h w"]:
        """Logits of {rest, way} from what `encode` gave, supports with the axes [B, N, K]; at any size."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it answers.")

    def losses(self, batch: Episode) -> dict[str, Tensor]:
        return {"segmentation": self.way_loss(self.answers(*self.encode_both(batch)), batch)}

    def decode(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """For one way the logits as they are; for several the logarithm of the merged scores."""
        binary = self.resized(self.answers(support, query), tuple(query["size"][0].tolist()))
        return binary[:, 0] if binary.shape[1] == 1 else merge_ways(binary.float().softmax(2)).clamp(min=1e-12).log()

    def way_loss(self, logits: Float[Tensor, "B answers 2 h w"], batch: Episode) -> Float[Tensor, ""]:
        """The mean over pixels of the answers' cross-entropy, at the labels' size. A way may have several in a row."""
        target = way_labels(batch)
        target = target.repeat_interleave(logits.shape[1] // target.shape[1], 1).flatten(0, 1)
        logits = self.resized(logits.float(), target.shape[-2:]).flatten(0, 1)
        return F.cross_entropy(logits, target, ignore_index=VOID)

    def resized(self, logits: Float[Tensor, "B answers 2 _ _"], size: tuple[int, int]) -> Tensor:
        """Logits of this size."""
        if logits.shape[-2:] == size:
            return logits
        flat = F.interpolate(logits.flatten(0, 1), size, mode="bilinear", align_corners=self.align_corners)
        return flat.unflatten(0, logits.shape[:2])


def together(batch: Episode) -> Tensor | dict[str, Tensor]:
    """Supports, then queries, as a backbone takes them: images, or what is kept of them."""
    if batch.kept is None:
        return torch.cat([batch.support_images.flatten(0, 2), batch.query_images])
    shown, asked = kept_of(batch, slice(-1)), kept_of(batch, slice(-1, None))
    return {name: torch.cat([shown[name], asked[name]]) for name in shown}


def kept_of(batch: Episode, part: slice) -> dict[str, Tensor]:
    """What is kept of a part of each episode's images, in single precision."""
    return {name: k[:, part].float().flatten(0, 1) for name, k in batch.kept.items()}


def way_labels(batch: Episode) -> Int[Tensor, "B N H W"]:
    """The query's labels once for each way: 1 the way, 0 the rest, void stays."""
    labels = batch.query_labels[:, None]
    way = torch.arange(1, batch.ways + 1, device=labels.device)[:, None, None]
    return torch.where(labels == VOID, VOID, (labels == way).long())


def size_of(images: Float[Tensor, "B C H W"]) -> Int[Tensor, "B 2"]:
    """Height and width, one row an image: a tensor, so that it can be kept and batched with the features."""
    return torch.tensor(images.shape[-2:], device="cpu").expand(len(images), 2)


def prediction_from_scores(scores: Float[Tensor, "B ways_and_background H W"]) -> Prediction:
    """Largest score wins; a way is present when it wins at least one pixel."""
    labels = scores.max(1).indices  # as argmax, and many times as fast
    ways = torch.arange(1, scores.shape[1], device=scores.device)
    presence = (labels.flatten(1)[:, None, :] == ways[None, :, None]).any(-1)
    return Prediction(labels, presence, scores)


def check_finite(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of the losses; raises TrainingDiverged before any parameter is touched when it is not a number."""
    total = sum(losses.values())
    if not torch.isfinite(total):
        raise TrainingDiverged(", ".join(f"{name} = {value.item():.4g}" for name, value in losses.items()))
    return total
