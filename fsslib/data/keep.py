"""Training without the stages that learn nothing: what they give of each image is kept on disk and read instead.

Features are kept in half precision, which moves losses in their fourth digit: a run that keeps them is another run. One
that is resumed is the same to the bit, also where the entry is made anew meanwhile.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsslib.data.cache import array_cache
from fsslib.data.images import LabelledImageSet, way_labels
from fsslib.episodes import EpisodeRow, EpisodeStream
from fsslib.files import DataError


def keep_features(method: Any, stream: Any, *, root: Path | None = None) -> Any:
    """The stream with `Episode.kept`, where the first stages of a method are frozen and its images lie in files.

    Features are made now, on the method's device, unless `fsslib.data.cache` has them: of the same files, size, network
    and weights. Their size on disk and in memory is printed before. Where there are none to keep, or the disk has no
    room, that is printed and the stream stays as it is. Raises DataError for features that half precision cannot hold.
    """
    name, device, supports = type(method).__name__, next(method.parameters()).device, method.keeps == "supports"
    if not (method.keeps and isinstance(stream, EpisodeStream) and isinstance(stream.source, LabelledImageSet)):
        print(f"{name} keeps no features: that is for episodes of images in files, and stages that learn nothing.")
        return stream
    images, classes = stream.source, stream.classes
    keys = {(i, c): f"{c} {i}" if supports else i for c in classes for i in images.images_by_class[c]}
    asked = [i for i, _ in keys] if stream.presence_probability == 1 else images.ids
    items = {key: pair for pair, key in keys.items()} | {i: (i, None) for i in asked}

    @torch.no_grad()
    def features(item: str) -> dict[str, Tensor]:
        image_id, c = items[item]
        found = images.images([image_id]).to(device)
        masks = None if c is None else way_labels(found.labels, torch.tensor([[c]], device=device))
        halves = {stage: value[0].half().cpu() for stage, value in method.frozen(found.images, masks).items()}
        if not all(value.isfinite().all() for value in halves.values()):
            raise DataError(f"Features of {item} are too large for half precision. Train without keeping any.")
        return halves

    arrays = {stage: (np.float16, tuple(value.shape)) for stage, value in features(next(iter(items))).items()}
    if not arrays:
        print(f"{name} keeps no features: no first stage of its backbone is frozen.")
        return stream
    size = 2 * sum(math.prod(shape) for _, shape in arrays.values())
    batch = 2 * size * stream.batch_size * (stream.ways * stream.shots + 1)
    print(
        f"{name} keeps {', '.join(arrays)} of {len(items)} images and supports of {images.name} in half precision: "
        f"{size * len(items) / 1e9:.2f} GB on disk, and in memory {batch / 1e6:.0f} MB a batch.",
        flush=True,
    )
    files = {item: images.files[image_id].files for item, (image_id, _) in items.items()}
    about = f"{images.size} {images.fit} {images.on_top} {device.type} {arrays} {method.frozen_as()}"
    name, made = f"{images.name}-{method.backbone.name}", lambda item: tuple(features(item).values())
    cache = array_cache(name, files, made, arrays, about=about, does="encoded", root=root)

    def read(rows: Sequence[EpisodeRow]) -> Mapping[str, Tensor]:
        wanted = []
        for row in rows:
            wanted += [keys[i, c] for c, way in zip(row.classes, row.supports) for i in way] + [row.query]
        return {stage: value.unflatten(0, (len(rows), -1)) for stage, value in cache.batch(wanted).items()}

    return stream if cache is None else replace(stream, source=images._copy(kept=read))
