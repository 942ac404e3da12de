"""Streets seen from a car, drawn by the program: a clean game and five towns, for learning to carry labels across.

Eleven classes with a long tail, as in driving data: road, building and sky fill the picture, while poles, signs,
persons and riders have less than a hundredth of it each. The `game` look is bright and flat and has few kinds of
everything; the `real` look shows the same kind of street in towns that differ in light, colours, houses and traffic,
through a camera. It is a teaching instrument, not a benchmark. Images are addressed by name, `game-000017` or
`harbour-000017`, and drawn when asked for; a name is the same picture everywhere.
"""

import math
import re
import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fsslib.data.sampling import k_per_group
from fsslib.data.toyworld.domains import blur
from fsslib.data.toyworld.noise import clouds, uniform
from fsslib.data.toyworld.street_looks import CITIES, DEVELOPMENT_CITY, LOOKS, Look
from fsslib.data.toyworld.street_objects import paint_things, place_things
from fsslib.data.toyworld.street_scenes import View, draw_street, lay_out, paint_bonnet
from fsslib.episodes import LabelledImages

__all__ = ["CITIES", "CLASS_NAMES", "DEVELOPMENT_CITY", "TO_CAMVID", "Streets", "city_of", "draw_target_images"]

CLASS_NAMES: Mapping[int, str] = dict(
    enumerate(("road", "pavement", "building", "fence", "pole", "sign", "tree", "sky", "person", "rider", "car"))
)

TO_CAMVID: Mapping[int, int] = {0: 3, 1: 4, 2: 1, 3: 7, 4: 2, 5: 6, 6: 5, 7: 0, 8: 9, 9: 10, 10: 8}
"""Each class of the streets as the class of CamVid's eleven: 0 sky, 1 building, 2 pole, 3 road, 4 pavement, 5 tree,
6 sign, 7 fence, 8 car, 9 pedestrian, 10 bicyclist. Void stays void."""

FIRST_TEST_NUMBER = 100_000
"""Images from this number on are for testing; smaller numbers are for training."""

_IMAGE_ID = re.compile(r"([a-z]+)-(\d{6})")
_BLOCK = 32
"""Images are drawn in blocks of neighbouring numbers, always the same: so a picture is the same to the last bit
whatever it is asked for with, and drawing many together is cheap."""

_MEMORY = 2**29
"""Bytes of drawn images that a source keeps, about 5000 images of 64 x 128. What was dropped is drawn again."""


class Streets:
    """A `SegmentationSource` of drawn streets, `size` x 2 `size` pixels.

    `look` is "game", or "real" with a `city`: one of CITIES, DEVELOPMENT_CITY (on which everything is tuned), or "all"
    for the four of CITIES together. `ids` are the training images: `count` of the game, or of each city.
    """

    name = "streets"
    class_names = CLASS_NAMES

    def __init__(
        self,
        look: str = "game",
        city: str | None = None,
        *,
        count: int = 512,
        size: int = 64,
        device: torch.device | str = "cpu",
    ):
        cities = (*CITIES, DEVELOPMENT_CITY)
        if look not in ("game", "real"):
            raise ValueError(f'Streets look like "game" or "real"; found {look!r}.')
        if look == "game" and city is not None:
            raise ValueError(f"The game has no cities; found city {city!r}. Leave it out, or ask for the look real.")
        if look == "real" and city not in (*cities, "all"):
            raise ValueError(f"Streets that look real need a city: {', '.join(cities)} or all; found {city!r}.")
        if size < 32:
            raise ValueError(f"Streets need a height of 32 pixels or more; found {size}.")
        if not 1 <= count <= FIRST_TEST_NUMBER:
            raise ValueError(f"There are 1 to {FIRST_TEST_NUMBER} training images; found count {count}.")
        self.domain = "game" if look == "game" else "cities" if city == "all" else city
        self.domains = CITIES if city == "all" else (self.domain,)
        self.count, self.size, self.device = count, size, torch.device(device)
        self.ids = tuple(f"{domain}-{number:06d}" for domain in self.domains for number in range(count))
        self._blocks: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def test_ids(self, count: int) -> tuple[str, ...]:
        """`count` test images of the game or of each city; none of them is ever a training image."""
        numbers = range(FIRST_TEST_NUMBER, FIRST_TEST_NUMBER + count)
        return tuple(f"{domain}-{number:06d}" for domain in self.domains for number in numbers)

    def images(self, ids: Sequence[str]) -> LabelledImages:
        """The images of these ids. Raises ValueError for an id that is not one of this source's."""
        places = [self._place(image_id) for image_id in ids]
        images = torch.empty(len(ids), 3, self.size, 2 * self.size, device=self.device)
        labels = torch.empty(len(ids), self.size, 2 * self.size, dtype=torch.int64, device=self.device)
        for key in dict.fromkeys((domain, number // _BLOCK) for domain, number in places):
            drawn, drawn_labels = self._block(*key)
            for k, (domain, number) in enumerate(places):
                if (domain, number // _BLOCK) == key:
                    images[k], labels[k] = drawn[number % _BLOCK], drawn_labels[number % _BLOCK]
        return LabelledImages(images, labels, self.domain)

    def _place(self, image_id: str) -> tuple[str, int]:
        """Domain and number of an id."""
        match = _IMAGE_ID.fullmatch(image_id)
        if not match or match[1] not in self.domains or self.count <= int(match[2]) < FIRST_TEST_NUMBER:
            raise ValueError(
                f"{image_id!r} is not an image of these streets ({self.domain}). Their training images are "
                f"{self.ids[0]} to {self.ids[-1]}, their test images {self.domains[0]}-{FIRST_TEST_NUMBER} and on."
            )
        return match[1], int(match[2])

    def _block(self, domain: str, block: int) -> tuple[Tensor, Tensor]:
        """Images and labels (one byte each) of a block, from memory or drawn."""
        if (domain, block) in self._blocks:
            return self._blocks[domain, block]
        names = [f"{domain}-{number:06d}" for number in range(block * _BLOCK, (block + 1) * _BLOCK)]
        seeds = torch.tensor([zlib.crc32(name.encode()) % 2**28 for name in names], device=self.device)
        # Nobody takes gradients through a drawing, and inference mode halves what every small step costs.
        with torch.inference_mode():
            drawn = _draw(seeds, LOOKS[domain], self.size)
        bytes_each = sum(t.nbytes for t in drawn)
        while self._blocks and (len(self._blocks) + 1) * bytes_each > _MEMORY:
            self._blocks.pop(next(iter(self._blocks)))
        self._blocks[domain, block] = drawn
        return drawn


def city_of(image_id: str) -> str:
    """The city, or "game", that an image id belongs to."""
    return image_id.rpartition("-")[0]


def draw_target_images(cities: Sequence[str], shots: int, *, seed: int | str, pool: int = 512) -> tuple[str, ...]:
    """The labelled target images of a run: `shots` of each city, drawn from its first `pool` training images.

    What "K-shot" means in PixDA: K labelled images per city, and no episodes. See `k_per_group` for the draw.
    """
    ids = [f"{city}-{number:06d}" for city in cities for number in range(pool)]
    return tuple(i for drawn in k_per_group(ids, city_of, shots, seed=seed).values() for i in drawn)


def _draw(seeds: Tensor, look: Look, size: int) -> tuple[Tensor, Tensor]:
    view = lay_out(seeds, look)
    # One noise is clouds above and texture below; the game's clouds are rounder.
    noise = clouds(seeds, 210, 2 * size, coarsest=4, octaves=6 if look.blur else 4, persistence=0.6)
    images, labels = draw_street(view, look, noise[:, :size])
    paint_things(place_things(view, look), view, images, labels)
    paint_bonnet(view, look, images, labels)
    return _photograph(images, view, look, noise[:, size:]), labels.to(torch.uint8)


def _photograph(image: Tensor, view: View, look: Look, texture: Tensor) -> Tensor:
    """Light and camera: exposure, tint and saturation, uneven surfaces, vignette, a soft lens, grain."""
    seeds, size, device = view.seeds, image.shape[2], image.device
    light, warmth, fade = (uniform(seeds, 230, 3) - 0.5).unbind(1)
    low, high = look.exposure
    gain = (low + high) / 2 + (high - low) * light
    tint = torch.tensor(look.tint, device=device) * torch.stack(
        [1 + 0.08 * warmth, 1 + 0 * warmth, 1 - 0.08 * warmth], 1
    )
    if not look.blur:
        warmth = fade = torch.zeros_like(light)
        tint = torch.ones_like(tint)
    saturation = (look.saturation + 0.3 * fade)[:, None, None]
    grey = torch.tensor([0.3, 0.59, 0.11], device=device).expand(3, 3)
    mix = saturation * torch.eye(3, device=device) + (1 - saturation) * grey
    image = torch.bmm(mix * (gain[:, None] * tint)[..., None], image.flatten(2)).view_as(image)
    x = (torch.arange(2 * size, device=device) + 0.5) / size - 1
    y = 2 * (torch.arange(size, device=device) + 0.5)[:, None] / size - 1
    corners = 1 - look.vignette * (0.5 * x * x + 0.5 * y * y)
    image.mul_(((texture - 0.5).mul_(look.texture).add_(1).mul_(corners))[:, None])
    if look.blur:
        image = blur(image, look.blur, beyond_edges=False).contiguous()
    # One hash a pixel gives three small numbers: a grain of its own for each colour.
    bits = uniform(seeds, 240, size, 2 * size).mul_(256)
    for channel in range(3):
        grain = bits - bits.floor() if channel == 2 else bits.floor() / 256
        bits = bits.sub_(bits.floor()).mul_(256)
        image[:, channel].add_(grain.sub_(0.5), alpha=look.grain * math.sqrt(12))
    return image.clamp_(0, 1)
