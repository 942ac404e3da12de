"""Scoring a method on frozen episodes under a named protocol."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from fsslib.data.streams import ImageSet
from fsslib.episodes import VOID, Episode, EpisodeSet
from fsslib.methods.base import Method, Prediction
from fsslib.metrics import FewShotMeter, SegmentationMeter, protocol_named


def evaluate(
    method: Method,
    episodes: EpisodeSet | ImageSet,
    protocol: str = "toy",
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 25,
    progress: bool = False,
) -> FewShotMeter | SegmentationMeter:
    """The pixel counts of `method` on all episodes of a manifest, or images of a set; `.compute()` makes scores of
    them.

    The method is in eval mode meanwhile and gets its mode back. The result does not depend on `batch_size`. Protocol
    "original" needs episodes that carry `query_originals`, and one whose method gives scores.
    """
    rule = protocol_named(protocol)
    if isinstance(episodes, ImageSet):
        meter = SegmentationMeter(episodes.source.class_names)
    else:
        meter = FewShotMeter(dict.fromkeys(c for row in episodes.manifest.rows for c in row.classes))
    was_training = method.training
    method.to(device).eval()
    method.compute_dtype = dtype
    try:
        batches = episodes.batches(batch_size)
        for episode in tqdm(batches, total=-(-len(episodes) // batch_size), leave=False, disable=not progress):
            episode = episode.to(device)
            with torch.inference_mode():
                prediction = method.predict(episode)
            if isinstance(meter, SegmentationMeter):
                meter.update(prediction.labels, episode.labels)
            elif rule.labels_at == "input":
                meter.update(prediction.labels, episode.query_labels, episode.class_ids, prediction.presence)
            else:
                for labels, truth, ids, presence in _at_original_size(prediction, episode):
                    meter.update(labels, truth, ids, presence)
    finally:
        method.train(was_training)
    return meter


def _at_original_size(prediction: Prediction, episode: Episode) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """One query at a time, its scores brought to the size of its original label map."""
    if episode.query_originals is None or prediction.scores is None:
        raise ValueError(
            'Protocol "original" needs episodes with label maps at their original size (open the data set with '
            "keep_originals=True) and a method whose predictions carry scores."
        )
    for row, truth in enumerate(episode.query_originals):
        truth = truth.to(prediction.labels.device)[None]
        scores = F.interpolate(prediction.scores[row : row + 1], truth.shape[-2:], mode="bilinear", align_corners=False)
        yield scores.argmax(1), truth, episode.class_ids[row : row + 1], prediction.presence[row : row + 1]


@dataclass(frozen=True)
class Best:
    """The counts of the weights that were best on held-out source images: after which step, at which loss there."""

    step: int
    loss: float
    meters: dict[str, FewShotMeter | SegmentationMeter]


def evaluate_best(
    method: Method, best: Mapping[str, Any] | None, exams: Mapping[str, EpisodeSet | ImageSet], *args, **kwargs
) -> Best | None:
    """`evaluate` with the weights of `History.best`; the method gets its own back. None when nothing was held out."""
    if best is None:
        return None
    last = {name: value.detach().clone() for name, value in method.state_dict().items()}
    method.load_state_dict(best["state"])
    try:
        meters = {domain: evaluate(method, exam, *args, **kwargs) for domain, exam in exams.items()}
    finally:
        method.load_state_dict(last)
    return Best(best["step"], best["loss"], meters)


def mean_loss(method: Method, images: ImageSet, batch_size: int = 25) -> float:
    """The cross-entropy of `method` on a set of images, a mean over their labelled pixels; the mode is given back."""
    was_training, total, pixels = method.training, 0.0, 0
    method.eval()
    device = next(method.parameters()).device
    with torch.inference_mode():
        for batch in images.batches(batch_size):
            batch = batch.to(device)
            with method.autocast(device):
                logits = method(batch)
            total += F.cross_entropy(logits.float(), batch.labels, ignore_index=VOID, reduction="sum").item()
            pixels += int((batch.labels != VOID).sum())
    method.train(was_training)
    return total / pixels


def mark_every_object(episodes: EpisodeSet, batch_size: int = 50) -> FewShotMeter | None:
    """The counts of an oracle that marks every object of the query with its exact outline, whatever the support shows.

    A one-way method must beat its score to show that it uses the support. None when there are several ways, or when
    the episodes have no full class map.
    """
    meter = FewShotMeter(dict.fromkeys(c for row in episodes.manifest.rows for c in row.classes))
    for episode in episodes.batches(batch_size):
        if episode.query_class_map is None or episode.ways > 1:
            return None
        objects = (episode.query_class_map > 0) & (episode.query_class_map != VOID)
        meter.update(objects.long(), episode.query_labels, episode.class_ids)
    return meter
