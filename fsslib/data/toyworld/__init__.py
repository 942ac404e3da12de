"""The embedded toy world: 25 classes, five looks, drawn by the program, the same picture for the same seed everywhere.

It is a teaching instrument, not a benchmark: colour, pose, size and background are random per object, so that only
silhouette and texture tell a class; other domains change the look and nothing else. Images are addressed by name,
`c1007-000123` (holds class 1007) or `c1007+c1012-000123` (both) or `none-000123`, and drawn when asked for, in batches.
"""

import functools
import random
import re
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from fsslib.data.toyworld.classes import (
    ALL_NAMES,
    CLASS_NAMES,
    DEVELOPMENT_FOLD,
    TEST_FOLDS,
    base_classes,
    fold_classes,
    split_base_classes,
    split_classes,
)
from fsslib.data.toyworld.domains import DEVELOPMENT_DOMAIN, DOMAINS, SOURCE_DOMAIN, TARGET_DOMAINS
from fsslib.data.toyworld.scenes import Scene, compose, draw, tiles
from fsslib.episodes import Episode, EpisodeRow, class_schedule

__all__ = [
    "CLASS_NAMES",
    "DEVELOPMENT_DOMAIN",
    "DEVELOPMENT_FOLD",
    "DOMAINS",
    "SOURCE_DOMAIN",
    "TARGET_DOMAINS",
    "TEST_FOLDS",
    "ToyWorld",
    "base_classes",
    "fold_classes",
    "split_base_classes",
    "split_classes",
]

_IMAGES_PER_NAME = 1_000_000
_IMAGE_ID = re.compile(r"(none|c\d+(?:\+c\d+)*)-(\d{6})")
_CHUNK_PIXELS = 2**21
"""Pixels laid out at a time, 512 images of 64 x 64: many, since objects of the same class are drawn together."""


class ToyWorld:
    """An `EpisodeSource` of toy scenes in one domain.

    `distractors` are the classes that fill up a scene beside the ones an episode asks about: the base classes of the
    fold. For the papers' way, in which training scenes also hold the tested classes as unlabelled background, pass
    those as well. `size` is the image's side in pixels (16 or more); the scene is the same at every size.
    """

    name = "toy"
    class_names = ALL_NAMES

    def __init__(
        self,
        domain: str = SOURCE_DOMAIN,
        *,
        size: int = 64,
        distractors: Sequence[int] = tuple(CLASS_NAMES),
        world_seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        if domain not in DOMAINS:
            raise ValueError(f"The toy world has the domains {', '.join(DOMAINS)}; found {domain!r}.")
        if unknown := [c for c in distractors if c not in ALL_NAMES]:
            raise ValueError(f"Not toy classes: {unknown}; toy classes are {min(ALL_NAMES)} to {max(ALL_NAMES)}.")
        if size < 16:
            raise ValueError(f"Toy images need a side of 16 pixels or more; found {size}.")
        self.domain, self.size, self.world_seed, self.device = domain, size, world_seed, torch.device(device)
        self.distractors = tuple(distractors)

    def sample(
        self,
        classes: Sequence[int],
        episodes: int,
        *,
        ways: int = 1,
        shots: int = 1,
        seed: str = "0",
        presence_probability: float = 1.0,
    ) -> list[EpisodeRow]:
        """Rows over toy images; with several ways each is in the query with `presence_probability`, independently.

        With probability 0.2 a query of two or more ways holds all of them, whatever `presence_probability` says, so
        that telling the ways apart is always part of the question. (With one way the probability is as given.)
        """
        rng = random.Random(f"toy-{seed}")
        rows = []
        for ids in class_schedule(classes, episodes, ways, rng):
            everything = ways > 1 and rng.random() < 0.2
            present = [c for c in ids if everything or rng.random() < presence_probability]
            names = ["+".join(f"c{c}" for c in sorted(present)) or "none", *(f"c{c}" for c in ids)]
            taken: set[str] = set()
            query = _fresh(names[0], rng, taken)
            supports = tuple(tuple(_fresh(name, rng, taken) for _ in range(shots)) for name in names[1:])
            rows.append(EpisodeRow(query, ids, supports))
        return rows

    def episode(self, rows: Sequence[EpisodeRow]) -> Episode:
        """Draw the images of these rows and cut their masks. Supports and queries are drawn in one batch."""
        ways, shots = len(rows[0].classes), len(rows[0].supports[0])
        ids = [row.query for row in rows] + [image for row in rows for way in row.supports for image in way]
        images, class_map = self.images(ids)
        class_ids = torch.tensor([row.classes for row in rows], device=self.device)
        batch, side = len(rows), (self.size, self.size)
        query_map = class_map[:batch]
        labels = torch.zeros_like(query_map)
        for way in range(ways):
            labels[query_map == class_ids[:, way, None, None]] = way + 1
        support_map = class_map[batch:].view(batch, ways, shots, *side)
        return Episode(
            support_images=images[batch:].view(batch, ways, shots, 3, *side),
            support_masks=(support_map == class_ids[:, :, None, None, None]).long(),
            query_images=images[:batch],
            query_labels=labels,
            class_ids=class_ids,
            domain=self.domain,
            query_class_map=query_map,
        )

    def images(self, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The images [B, 3, H, W] in [0, 1] and class maps [B, H, W] (class id, 0 background) of these ids."""
        images = torch.empty(len(ids), 3, self.size, self.size, device=self.device)
        maps = torch.empty(len(ids), self.size, self.size, dtype=torch.int64, device=self.device)
        chunk = max(1, _CHUNK_PIXELS // self.size**2)
        # Nobody takes gradients through a drawing, and inference mode halves what every small step costs. The results
        # were made outside of it and are ordinary tensors.
        with torch.inference_mode():
            for start in range(0, len(ids), chunk):
                scene = self.scene(ids[start : start + chunk])
                maps[start : start + chunk] = scene.class_map
                for tile in tiles(len(scene), self.size):
                    torch.clamp(DOMAINS[self.domain](scene[tile]), 0, 1, out=images[start : start + chunk][tile])
        return images, maps

    def scene(self, ids: Sequence[str]) -> Scene:
        """The clean drawings behind these ids, with part map and depth: what a domain makes its images from."""
        parsed = [_parse(image_id) for image_id in ids]
        most = max(1, *(len(wanted) for wanted, _ in parsed))
        wanted = torch.tensor([[*w, *[-1] * (most - len(w))] for w, _ in parsed], device=self.device)
        seeds = torch.tensor([(s + 7919 * self.world_seed) % 2**28 for _, s in parsed], device=self.device)
        return draw(compose(seeds, wanted, torch.tensor(self.distractors, device=self.device).long()), self.size)


def _fresh(name: str, rng: random.Random, taken: set[str]) -> str:
    """An image id of this name that the episode does not use yet."""
    while (image_id := f"{name}-{int(rng.random() * _IMAGES_PER_NAME):06d}") in taken:
        pass
    taken.add(image_id)
    return image_id


@functools.lru_cache(maxsize=100_000)
def _parse(image_id: str) -> tuple[tuple[int, ...], int]:
    """The classes an image must hold, and its seed."""
    match = _IMAGE_ID.fullmatch(image_id)
    wanted = tuple(int(c[1:]) for c in match[1].split("+")) if match and match[1] != "none" else ()
    if not match or any(c not in ALL_NAMES for c in wanted) or len(wanted) > 4:
        raise ValueError(
            f"{image_id!r} is not a toy image id; ids look like c1007-000123, c1007+c1012-000123 or none-000123."
        )
    return wanted, zlib.crc32(image_id.encode()) % 2**28
