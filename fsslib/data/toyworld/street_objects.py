"""What stands and drives in a street: placing it, and painting it from far to near.

A part of an object (see street_shapes.py) is a half-width for each row of pixels, whatever its form, and one formula
paints it with soft edges. Parts have a depth of their own, so that a car shows its flank when it is passed.
"""

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsslib.data.toyworld import street_shapes as shapes
from fsslib.data.toyworld.noise import uniform
from fsslib.data.toyworld.street_looks import Look
from fsslib.data.toyworld.street_scenes import CAR, FOCAL, SIGN, View, hazy, rgb

_TILE = 2**19
"""Numbers worked on at a time."""

_SIDES = (10, 20, 40, 80, 160, 320)
"""Windows have sides of so many pixels, or of the whole picture."""

_VISIBLE = 0.4
"""A pixel is labelled as an object that covers more than this of it: thin poles never cover half of one."""


@dataclass(frozen=True)
class Things:
    """N objects of a batch of pictures: which picture, what, where; `rank` counts from the farthest of its picture.

    `scale` stretches its shape, `mirror` is -1 for one that is drawn the other way round.
    """

    image: Int[Tensor, "N"]
    rank: Int[Tensor, "N"]
    kind: Int[Tensor, "N"]
    x: Float[Tensor, "N"]
    z: Float[Tensor, "N"]
    scale: Float[Tensor, "N"]
    mirror: Float[Tensor, "N"]
    palette: Float[Tensor, "N colours 3"]

    def __len__(self) -> int:
        return len(self.image)


_PLACES = 40
"""Places in a street where something can be."""


def place_things(view: View, look: Look) -> Things:
    """Who is in the street: everybody in a place where streets have them, the nearest some metres ahead."""
    batch, device = len(view.seeds), view.seeds.device
    left, right = view.left[:, None], view.right[:, None]
    middle = (left + right) / 2
    everything = uniform(view.seeds, 300, 11, _PLACES)
    used = 0
    groups: list[tuple[Tensor, ...]] = []

    def add(names, chance, x, first, step, jitter, colours, *, count=1, sideways=0.0, scale=(0.95, 1.08), mirror=0.0):
        """`count` places one behind the other, the first at z = `first` or farther, where something may stand.

        `x` is moved by up to `sideways` of its own sign or the other; without `mirror` either way round is likely.
        """
        nonlocal used
        numbers = iter(everything[:, :, used : used + count].unbind(1))
        used += count
        there = next(numbers) < chance
        kind = torch.tensor([shapes.NAMES.index(name) for name in names], device=device)[
            (next(numbers) * len(names)).long()
        ]
        z = first + step * torch.arange(count, device=device) + jitter * next(numbers)
        x = x + sideways * (2 * next(numbers) - 1)
        stretch = scale[0] + (scale[1] - scale[0]) * next(numbers)
        way = torch.where(next(numbers) < 0.5, -1.0, 1.0)
        table = rgb(colours, device)
        first_colour, second_colour = (table[(next(numbers) * len(table)).long()] for _ in range(2))
        palette = torch.stack([first_colour, second_colour], 2) * (0.9 + 0.2 * next(numbers))[..., None, None]
        groups.append((there, kind, x, z, stretch, torch.full_like(way, mirror) if mirror else way, palette))

    def mixed(direction: str) -> tuple[str, ...]:
        vans = round(8 * look.vans)
        return (f"car {direction}",) * (8 - vans) + (f"van {direction}",) * vans

    away, coming, riding, walkers = mixed("away"), mixed("coming"), ("rider away",), ("walker", "walker in a dress")
    add(away, look.parked, right - 1.15, 6.5, 7.0, 2.5, look.cars, count=4, mirror=1.0)
    add(coming, look.parked, left + 1.15, 7.0, 7.0, 2.5, look.cars, count=4, mirror=1.0)
    add(away, look.driving, (middle + right) / 2 - 0.7, 9, 0, 26, look.cars, mirror=1.0)
    add(coming, look.driving, (middle + left) / 2 + 0.6, 9, 16, 14, look.cars, count=2, mirror=1.0)
    for edge, side, front in ((left, -1.0, view.left_front), (right, 1.0, view.right_front)):
        walk = front[:, None] - edge
        add(look.tree_kinds, look.trees, edge + 1.1 * side, 9, 12, 8, look.leaves, count=3, scale=(0.8, 1.2))
        add(look.post_kinds, look.posts, edge + 0.5 * side, 6, 7, 6, look.clothes, count=3, mirror=-side)
        place = edge + 0.55 * walk
        add(walkers, look.persons, place, 5.5, 4.5, 4.5, look.clothes, count=3, sideways=0.3 * walk, scale=(0.8, 1.1))
        add(("bin",), 0.22, edge + 1.7 * side, 6, 0, 14, look.clothes)
    add(walkers, 0.35 * look.persons, middle, 8, 0, 9, look.clothes, sideways=3.0)
    add(riding, look.riders, right - 2.3, 6, 0, 9, look.clothes, sideways=0.5)
    add(riding, 0.7 * look.riders, left + 2.5, 7, 0, 9, look.clothes, sideways=0.5)
    add(("rider across",), 0.6 * look.riders, middle, 8, 0, 8, look.clothes, sideways=3.5)

    there, kind, x, z, scale, mirror, palette = (torch.cat(columns, 1) for columns in zip(*groups))
    there &= z < view.end[:, None]
    order = torch.where(there, z, -1.0).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(used, device=device).expand(batch, -1))
    pick = there.nonzero().unbind(1)
    image = pick[0]
    fixed = rgb(shapes.COLOURS, device).expand(len(image), -1, -1)
    colours = torch.cat([palette[pick], fixed], 1)
    colours = hazy(colours, z[pick][:, None].expand(-1, colours.shape[1]), view.haze[image], look)
    return Things(image, rank[pick], kind[pick], x[pick], z[pick], scale[pick], mirror[pick], colours)


def paint_things(things: Things, view: View, image: Float[Tensor, "B 3 H W"], labels: Float[Tensor, "B H W"]) -> None:
    """Paint the objects over the empty street, far ones first.

    All objects with windows of one size are drawn together into one long list of pixels, which is then laid over the
    pictures rank by rank, since objects of one rank are in different pictures.
    """
    height, width = labels.shape[1:]
    drawn = _Shapes.of(things, view, height)
    low, high = drawn.extent()
    limits = torch.tensor([width, height], device=image.device)
    low, high = low.floor().long().clamp(min=0), high.ceil().long().minimum(limits)
    shown = (high > low).all(1)
    if not shown.any():
        return
    family = (shapes.CLASSES.to(image.device)[things.kind] == CAR).long()
    sides = torch.tensor([s for s in _SIDES if s < width], device=image.device)
    bucket = torch.searchsorted(sides, high - low)
    window = torch.cat([sides, limits[:1]])[bucket].minimum(limits)
    corner = low.minimum(limits - window)
    key = (family * 64 + bucket[:, 0]) * 64 + bucket[:, 1]

    # Where each object's pixels go in the list: all of rank 0, then all of rank 1 ...
    area = window.prod(1) * shown
    by_rank = things.rank.argsort(stable=True)
    start = torch.empty_like(area)
    start[by_rank] = area[by_rank].cumsum(0) - area[by_rank]
    total = int(area.sum())
    pixels = torch.empty(total, dtype=torch.int64, device=image.device)
    paint, keep = image.new_empty(3, total), image.new_empty(total)
    front = torch.zeros(labels.shape, dtype=torch.int32, device=image.device).view(-1)

    for group in key[shown].unique().tolist():
        members = ((key == group) & shown).nonzero()[:, 0]
        (across, down), parts = window[members[0]].tolist(), shapes.FAMILIES[group // 64**2]
        for some in members.split(max(1, _TILE // (parts * across * down))):
            at = corner[some]
            colour, left, solid, sign = drawn.draw(some, parts, at, across, down, things.palette)
            place = at[:, 1, None] * width + at[:, :1] + _offsets(across, down, width, image.device)
            to = (start[some][:, None] + torch.arange(across * down, device=image.device)).view(-1)
            pixels.scatter_(0, to, (place + things.image[some][:, None] * (3 * height * width)).view(-1))
            keep.scatter_(0, to, left.view(-1))
            paint.scatter_(1, to.expand(3, -1), colour.transpose(0, 1).reshape(3, -1))
            label = shapes.CLASSES.to(image.device)[things.kind[some]][:, None]
            label = torch.where(sign > 0.5 * solid, SIGN, label)
            nearest = ((things.rank[some][:, None] + 1) * 256 + label) * (solid > _VISIBLE)
            place += things.image[some][:, None] * (height * width)
            front.scatter_reduce_(0, place.view(-1), nearest.to(torch.int32).view(-1), "amax")

    flat, planes = image.view(-1), torch.arange(3, device=image.device)[:, None] * (height * width)
    ends = torch.zeros(int(things.rank.max()) + 1, dtype=torch.int64, device=image.device)
    ends = ends.index_add_(0, things.rank, area).cumsum(0).tolist()
    for begin, end in zip([0, *ends], ends):
        at = (pixels[begin:end] + planes).view(-1)
        under = flat.index_select(0, at).view(3, -1)
        flat.scatter_(0, at, under.mul_(keep[begin:end]).add_(paint[:, begin:end]).view(-1))
    front = front.view(labels.shape)
    labels.copy_(torch.where(front > 0, (front & 255).float(), labels))


@functools.lru_cache(maxsize=256)
def _offsets(across: int, down: int, width: int, device: torch.device) -> Int[Tensor, "pixels"]:
    """Where the pixels of a window lie in a picture, counted from the window's corner."""
    rows = torch.arange(down, device=device)[:, None] * width
    return (rows + torch.arange(across, device=device)).view(-1)


@dataclass(frozen=True)
class _Shapes:
    """The parts of N objects in pixels: `middle` and `half` hold (right, down); `lean` is sideways at the top."""

    table: Float[Tensor, "N P 12"]
    middle: Float[Tensor, "N P 2"]
    half: Float[Tensor, "N P 2"]
    lean: Float[Tensor, "N P"]

    @classmethod
    def of(cls, things: Things, view: View, size: int) -> "_Shapes":
        table = shapes.TABLE.to(things.x.device)[things.kind]
        scale = things.scale[:, None]
        per_metre = FOCAL * size / (things.z[:, None] + scale * table[:, :, shapes.Z])
        sideways = (scale * things.mirror[:, None]) * per_metre
        right = (
            view.vanishing[things.image, None] * size + things.x[:, None] * per_metre + sideways * table[:, :, shapes.X]
        )
        down = view.horizon[things.image, None] * size
        down = down + (view.eye[things.image, None] - scale * table[:, :, shapes.Y]) * per_metre
        half = table[:, :, [shapes.HALF_WIDTH, shapes.HALF_HEIGHT]] * (scale * per_metre)[..., None]
        return cls(table, torch.stack([right, down], 2), half, sideways * table[:, :, shapes.LEAN])

    def extent(self) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N 2"]]:
        """Upper left and lower right corner of all parts, with their soft edges."""
        reach = self.half + 0.5
        reach = torch.stack(
            [reach[..., 0] * (1 + (-self.table[:, :, shapes.TAPER]).clamp(min=0)) + self.lean.abs(), reach[..., 1]], 2
        )
        unused = (self.table[:, :, shapes.OPACITY] == 0)[..., None]
        low = (self.middle - reach).masked_fill(unused, 1e6).amin(1)
        return low, (self.middle + reach).masked_fill(unused, -1e6).amax(1)

    def draw(
        self, some: Int[Tensor, "n"], parts: int, corner: Int[Tensor, "n 2"], across: int, down: int, palette: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Windows of `across` x `down` pixels: colour to add [n, 3, pixels]; and [n, pixels] each: the share of what is
        underneath to keep, how much is solid (no shadow), how much of that is a sign."""
        table = self.table[some, :parts]
        (right, below), (half, tall) = (t[some, :parts].unbind(2) for t in (self.middle, self.half))
        x = corner[:, :1] + (torch.arange(across, device=corner.device) + 0.5)
        y = corner[:, 1:] + (torch.arange(down, device=corner.device) + 0.5)

        # For each row of pixels, how wide each part is there and how far it leans.
        up = ((below[..., None] - y[:, None]) / tall[..., None]).clamp(-1, 1)
        taper, form = table[:, :, shapes.TAPER, None], table[:, :, shapes.FORM, None]
        wide = 1 - taper * (up + 1) / 2
        wide = torch.where(form == shapes.DISC, (1 - up * up).sqrt(), wide)
        wide = half[..., None] * torch.where(form == shapes.DIAMOND, 1 - up.abs(), wide)
        middle = right[..., None] + self.lean[some, :parts, None] * up
        row = (tall[..., None] + 0.5 - (below[..., None] - y[:, None]).abs()).clamp(min=0)
        row = row.minimum((2 * tall[..., None]).clamp(max=1)) * table[:, :, shapes.OPACITY, None]

        share = (x[:, None, None] - middle[..., None]).abs_().neg_().add_((wide + 0.5)[..., None]).clamp_(min=0)
        torch.minimum(share, (2 * wide).clamp(max=1)[..., None], out=share).mul_(row[..., None])
        left = torch.ones(len(some), down, across, device=x.device)
        for k in range(parts):
            left.sub_(share[:, k].mul_(left))
        shade = (
            torch.gather(palette[some], 1, table[:, :, shapes.COLOUR].long()[..., None].expand(-1, -1, 3))
            * table[:, :, shapes.SHADE, None]
        )
        solid = (table[:, :, shapes.OPACITY] == 1).float()
        mix = torch.cat([shade.clamp(0, 1).mT, solid[:, None], (solid * table[:, :, shapes.IS_SIGN])[:, None]], 1)
        mixed = torch.bmm(mix, share.flatten(2))
        return mixed[:, :3], left.flatten(1), mixed[:, 3], mixed[:, 4]
