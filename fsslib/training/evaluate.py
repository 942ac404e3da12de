"""Scoring a method on frozen episodes under a named protocol."""

import inspect
import itertools
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from tqdm.auto import tqdm

from fsslib.data.streams import ImageSet
from fsslib.episodes import VOID, Episode, EpisodeRow, EpisodeSet
from fsslib.methods.base import Method, Prediction
from fsslib.metrics import FewShotMeter, Protocol, SegmentationMeter, protocol_named


def evaluate(
    method: Method,
    episodes: EpisodeSet | ImageSet,
    protocol: str = "toy",
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    keep_bytes: int = 2**30,
    progress: bool = False,
) -> FewShotMeter | SegmentationMeter:
    """The pixel counts of `method` on all episodes of a manifest, or images of a set; `.compute()` makes scores of
    them.

    The method is in eval mode meanwhile and gets its mode back. Any `batch_size` gives the same up to rounding; the
    default is `questions_at_once`, which answers one question more. `progress` leaves a line that names it. A source
    that can shows images and truth as the protocol has them. One that scores at original sizes needs episodes with
    `query_originals`, and a method that gives scores; ValueError else.

    A manifest that shows images again is answered without running the backbone on them again, where the method splits
    into `encode` and `decode`: what was encoded is kept on `device`, at most `keep_bytes` of supports and as many of
    queries, until it is used for the last time. Answers are equal up to rounding. Where that spares less than a tenth
    of the images, or `keep_bytes` is 0, each episode is answered as a whole.
    """
    rule = protocol_named(protocol)
    if isinstance(episodes, ImageSet):
        if rule.of_episodes:
            raise ValueError(f"{protocol!r} is a rule for episodes; images of a set have no ways. Choose another.")
        meter = SegmentationMeter(episodes.source.class_names)
    else:
        meter = FewShotMeter(dict.fromkeys(c for row in episodes.manifest.rows for c in row.classes), rule.absent)
        if hasattr(episodes.source, "under"):
            episodes = replace(episodes, source=episodes.source.under(rule))
    method.compute_dtype = dtype
    batch_size = batch_size or questions_at_once(method, episodes, device)
    predict: Callable[[Any], Prediction] = method.predict
    if keep_bytes and isinstance(episodes, EpisodeSet) and _splits(method):
        rows = episodes.manifest.rows
        images = [key for row in rows for key in (row.query, *_support_keys(row))]
        if len(set(images)) <= 0.9 * len(images):
            predict = _reusing(method, rows, keep_bytes)
    batches, total = episodes.batches(batch_size), -(-len(episodes) // batch_size)
    with evaluating(method, device):
        for episode in tqdm(batches, f"{batch_size} at a time", total, disable=not progress):
            episode = episode.to(device)
            with torch.inference_mode():
                prediction = predict(episode)
            if isinstance(meter, SegmentationMeter):
                meter.update(prediction.labels, episode.labels)
            elif rule.labels_at == "input":
                meter.update(prediction.labels, episode.query_labels, episode.class_ids, prediction.presence)
            else:
                for answer in _at_original_size(prediction, episode, rule):
                    meter.update(*answer)
    return meter


@contextmanager
def evaluating(method: Method, device: torch.device | str) -> Iterator[None]:
    """The method in eval mode on a device; it gets its mode back, whatever happens."""
    was_training = method.training
    method.to(device).eval()
    try:
        yield
    finally:
        method.train(was_training)


AT_ONCE = 25
"""Questions that are answered at once, at most."""

ROOM = 2**29
"""Bytes that answering them may take on a CPU."""


def questions_at_once(method: Method, questions: EpisodeSet | ImageSet, device: torch.device | str = "cpu") -> int:
    """How many questions a method answers at once: as many as there is room for, judged by the first one alone.

    AT_ONCE at most. The method is in eval mode meanwhile, and no random number is used up.
    """
    device = torch.empty(0, device=device).device
    gpus = [device] if device.type == "cuda" else []
    with evaluating(method, device), torch.random.fork_rng(gpus), torch.inference_mode(), _Peak() as peak:
        for first in itertools.islice(questions.batches(1), 1):
            method.predict(first.to(device))
    return min(AT_ONCE, max(1, _room(device) // max(1, peak.bytes)))


def _room(device: torch.device) -> int:
    """A quarter of the free memory of a GPU, what torch holds there without using it among it; ROOM elsewhere."""
    if device.type != "cuda":
        return ROOM
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + held) // 4


class _Peak(TorchDispatchMode):
    """Counts the most bytes that tensors made inside hold together; what an operation needs meanwhile is not seen."""

    def __init__(self):
        super().__init__()
        self.bytes = self._live = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for storage in (tensor.untyped_storage() for tensor in tree_leaves(made) if isinstance(tensor, Tensor)):
            if (place := storage.data_ptr()) not in self._known:
                self._known.add(place)
                self._live += storage.nbytes()
                self.bytes = max(self.bytes, self._live)
                weakref.finalize(storage, self._freed, place, storage.nbytes())
        return made

    def _freed(self, place: int, size: int) -> None:
        self._known.discard(place)
        self._live -= size


# torch guards it against being compiled, which imports torch._dynamo: most of a second before the first answer.
_Peak.__torch_dispatch__ = inspect.unwrap(_Peak.__torch_dispatch__)


def _reusing(method: Method, rows: Sequence[EpisodeRow], room: int) -> Callable[[Episode], Prediction]:
    """Predictions for the rows of a manifest, in their order, that encode an image once as long as there is room."""
    left, queries = iter(rows), _Kept([row.query for row in rows], room)
    supports = _Kept([key for row in rows for key in _support_keys(row)], room)

    def predict(episode: Episode) -> Prediction:
        asked, lead = list(itertools.islice(left, len(episode))), episode.support_masks.shape[:3]
        images, masks = episode.support_images.flatten(0, 2), episode.support_masks.flatten(0, 2)
        with method.autocast(episode.query_images.device):
            shown = supports.encoded(method, [key for row in asked for key in _support_keys(row)], images, masks)
            query = queries.encoded(method, [row.query for row in asked], episode.query_images)
            return method.predict_encoded({key: value.unflatten(0, lead) for key, value in shown.items()}, query)

    return predict


class _Kept:
    """What `encode` gave for images by name, those that will be asked for again.

    When the room is full, no more is kept: with images that come round in turn, whatever were thrown out would be asked
    for next.
    """

    def __init__(self, keys: Sequence[Hashable], room: int):
        self._uses, self._room = Counter(keys), room
        self._kept: dict[Hashable, dict[str, Tensor]] = {}

    def encoded(self, method: Method, keys: Sequence[Hashable], *inputs: Tensor) -> dict[str, Tensor]:
        """`method.encode` of images, or images and masks, of these names."""
        new = {key: place for place, key in enumerate(keys) if key not in self._kept}
        found = {key: self._kept[key] for key in keys if key in self._kept}
        if new:
            made = method.encode(*(tensor[list(new.values())] for tensor in inputs))
            found |= {key: {name: values[i] for name, values in made.items()} for i, key in enumerate(new)}
        self._uses.subtract(keys)
        for key, values in found.items():
            size = sum(tensor.nbytes for tensor in values.values())
            if not self._uses[key]:
                self._room += size if self._kept.pop(key, None) else 0
            elif key in new and size <= self._room:
                # A copy: a row of a batch would keep all of the batch.
                self._kept[key] = {name: tensor.clone() for name, tensor in values.items()}
                self._room -= size
        if list(new) == list(keys):
            return made
        return {name: torch.stack([found[key][name] for key in keys]) for name in found[keys[0]]}


def _support_keys(row: EpisodeRow) -> list[tuple[str, int]]:
    """A support is an image with the mask of a class."""
    return [(image, number) for number, way in zip(row.classes, row.supports) for image in way]


def _splits(method: Method) -> bool:
    """Whether `encode` and `decode` answer as `predict` does: no class overrides the whole and not its parts."""
    classes = type(method).__mro__

    def definer(name: str) -> int:
        return next(place for place, owner in enumerate(classes) if name in vars(owner))

    return (
        method.encodes_alike
        and classes[definer("decode")] is not Method
        and definer("decode") <= definer("forward")
        and definer("predict_encoded") <= definer("predict")
    )


def _at_original_size(
    prediction: Prediction, episode: Episode, rule: Protocol
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """One query at a time, its scores brought to the size of its original label map.

    Of padded inputs first to a square of that map's longer side, corners aligned, as PFENet; the map lies at its upper
    left. That the input's shorter side was cut to a multiple of 8 is not undone: up to seven of its pixels are missed.
    """
    if episode.query_originals is None or prediction.scores is None:
        raise ValueError(
            f"Protocol {rule.name!r} needs label maps at their original size, which sets of real images have (the toy "
            "world's have one size only), and a method whose predictions carry scores."
        )
    for row, truth in enumerate(episode.query_originals):
        truth = truth.to(prediction.labels.device)[None]
        height, width = truth.shape[-2:]
        padded, side = rule.fit == "padded", max(height, width)
        size = (side, side) if padded else (height, width)
        scores = F.interpolate(prediction.scores[row : row + 1], size, mode="bilinear", align_corners=padded)
        labels, this = scores.max(1).indices[:, :height, :width], slice(row, row + 1)
        yield labels, truth, episode.class_ids[this], prediction.presence[this]


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


def mean_loss(method: Method, images: ImageSet, batch_size: int | None = None) -> float:
    """The cross-entropy of `method` on a set of images, a mean over labelled pixels; mode and batches as `evaluate`."""
    device, total, pixels = next(method.parameters()).device, 0.0, 0
    batch_size = batch_size or questions_at_once(method, images, device)
    with evaluating(method, device), torch.inference_mode():
        for batch in images.batches(batch_size):
            batch = batch.to(device)
            with method.autocast(device):
                logits = method(batch)
            total += F.cross_entropy(logits.float(), batch.labels, ignore_index=VOID, reduction="sum").item()
            pixels += int((batch.labels != VOID).sum())
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
