"""Streets without their traffic: sky, house fronts, gardens and ground, in perspective, for a whole batch at once.

The street runs straight away from the camera between two vertical planes. A column of pixels therefore meets a front
at one distance and a row meets the ground at one distance, so that nearly everything (which house, which colour, how
much haze) is worked out for columns or rows, and only where the two meet is there work for every pixel.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsslib.data.toyworld.noise import uniform
from fsslib.data.toyworld.street_looks import Look
from fsslib.episodes import VOID

ROAD, PAVEMENT, BUILDING, FENCE, POLE, SIGN, TREE, SKY, PERSON, RIDER, CAR = range(11)

FOCAL = 1.15
"""Focal length in image heights: a picture twice as wide as high spans 82 degrees."""

_PLOTS = 16
"""House plots along each side of a street, and along its far end."""

_HOUSE_DEPTH = 11.0
_END_ORIGIN = 60.0
"""Where along its plots the far end is met straight ahead."""

OPEN = 300.0
"""A street that ends farther away than this is open: the sky reaches down to its horizon."""

_NOWHERE = 9.0
"""A row far below every picture, for what is not there."""


class Draws:
    """Random numbers of B pictures, taken one after the other: of shape [B, *shape] each."""

    def __init__(self, seeds: Int[Tensor, "B"], stream: int, count: int, *shape: int):
        self._numbers = iter(uniform(seeds, stream, count, *shape).unbind(1))
        self._device = seeds.device

    def between(self, limits: tuple[float, float]) -> Tensor:
        return limits[0] + (limits[1] - limits[0]) * next(self._numbers)

    def chance(self, probability: float) -> Tensor:
        return next(self._numbers) < probability

    def index(self, count: int) -> Tensor:
        return (next(self._numbers) * count).long()

    def colour(self, colours: tuple[str, ...]) -> Tensor:
        """One of the colours [..., 3], a little brighter or darker."""
        table = rgb(colours, self._device)
        return table[self.index(len(colours))] * self.between((0.93, 1.07))[..., None]


@dataclass(frozen=True)
class View:
    """Camera and street of B pictures. Metres, x to the right of the camera and z ahead; rows and columns of the
    picture in image heights. `side` is +1 when the sun stands to the right, -1 to the left; `plots` are the houses."""

    seeds: Int[Tensor, "B"]
    vanishing: Float[Tensor, "B"]
    horizon: Float[Tensor, "B"]
    eye: Float[Tensor, "B"]
    left: Float[Tensor, "B"]
    right: Float[Tensor, "B"]
    left_front: Float[Tensor, "B"]
    right_front: Float[Tensor, "B"]
    end: Float[Tensor, "B"]
    haze: Float[Tensor, "B"]
    sun: Float[Tensor, "B"]
    side: Float[Tensor, "B"]
    shadow: Float[Tensor, "B"]
    cloud: Float[Tensor, "B"]
    hills: Float[Tensor, "B"]
    dash: Float[Tensor, "B"]
    crossing: Float[Tensor, "B"]
    bonnet: Float[Tensor, "B"]
    hill_colour: Float[Tensor, "B 3"]
    paving: Float[Tensor, "B 3"]
    asphalt: Float[Tensor, "B 3"]
    bumps: Float[Tensor, "B 6"]
    widths: Float[Tensor, "B 3"]
    starts: Float[Tensor, "B 3"]
    plots: dict[str, Tensor]


def rgb(colours: tuple[str, ...], device: torch.device) -> Float[Tensor, "colours 3"]:
    """Colours written "rrggbb" as numbers in [0, 1]."""
    return torch.tensor([[int(c[k : k + 2], 16) / 255 for k in (0, 2, 4)] for c in colours], device=device)


def lay_out(seeds: Int[Tensor, "B"], look: Look) -> View:
    """Where the camera stands in which street. It drives on the right, so the road reaches farther to the left."""
    draws = Draws(seeds, 200, 40)
    half = draws.between(look.half_road)
    lane = half * draws.between((0.35, 0.6))
    left, right = -half - lane, half - lane
    side = torch.where(draws.chance(0.5), -1.0, 1.0)
    widths = torch.stack([draws.between(look.plot) for _ in range(3)], 1)
    far = torch.full_like(half, _END_ORIGIN)
    starts = torch.stack([draws.between((0.0, 1.0)) * widths[:, 0], draws.between((0.0, 1.0)) * widths[:, 1], far], 1)
    return View(
        seeds=seeds,
        vanishing=1 + draws.between((-0.22, 0.22)),
        horizon=draws.between(look.horizon),
        eye=draws.between((1.35, 1.75)),
        left=left,
        right=right,
        left_front=left - draws.between(look.pavement),
        right_front=right + draws.between(look.pavement),
        end=torch.where(draws.chance(look.open_end), 400.0, draws.between((45.0, 85.0))),
        haze=draws.between(look.haze),
        sun=draws.between(look.sun),
        side=torch.full_like(side, look.sun_side) if look.sun_side else side,
        shadow=draws.between((2.0, 5.5)),
        cloud=draws.between(look.cloud),
        hills=draws.between(look.hills),
        dash=draws.between((0.0, 1.0)),
        crossing=torch.where(draws.chance(look.zebra), draws.between((7.0, 22.0)), -99.0),
        bonnet=draws.between((0.035, 0.065)),
        hill_colour=draws.colour(look.leaves) * 0.9,
        paving=draws.colour(look.pavement_colour),
        asphalt=draws.colour(look.road),
        bumps=torch.stack([draws.between((0.6, 1.0)) for _ in range(6)], 1),
        widths=widths,
        starts=starts,
        plots=_plots(seeds, look),
    )


def _plots(seeds: Int[Tensor, "B"], look: Look) -> dict[str, Tensor]:
    """What stands on the plots [B, 3 * _PLOTS]: left side, right side, far end. A garden's eaves are its hedge."""
    draws = Draws(seeds, 201, 30, 3 * _PLOTS)
    garden = draws.chance(look.garden)
    leaf = draws.colour(look.leaves)
    return {
        "garden": garden,
        "gable": draws.chance(look.gable),
        "shop": draws.chance(look.shop) & ~garden,
        "railing": garden | draws.chance(0.25 * look.garden),
        "eaves": torch.where(garden, draws.between(look.hedge), draws.between(look.eaves)),
        "roof": torch.where(garden, 0.8, draws.between(look.roof)),
        "spacing": draws.between(look.window),
        "storey": draws.between((2.6, 3.2)),
        "phase": draws.between((0.0, 1.0)),
        "fence": draws.between(look.fence),
        "facade": torch.where(garden[..., None], leaf, draws.colour(look.facades)),
        "roof colour": torch.where(garden[..., None], leaf * 1.1, draws.colour(look.roofs)),
        "accent": draws.colour(look.accents),
        "fence colour": draws.colour(look.fences),
    }


def hazy(
    colour: Float[Tensor, "B n 3"], distance: Float[Tensor, "B n"], haze: Float[Tensor, "B"], look: Look
) -> Float[Tensor, "B n 3"]:
    """Colours seen over distances in metres: they fade into the lower sky."""
    air = rgb(look.sky[1:], colour.device)
    return air + (colour - air) * torch.exp(-haze[:, None] * distance)[..., None]


def draw_street(
    view: View, look: Look, heaps: Float[Tensor, "B H W"]
) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B H W"]]:
    """Paint the empty street with its labels; `heaps` is noise of the picture's size, which becomes clouds."""
    size, device = heaps.shape[1], heaps.device
    x = (torch.arange(2 * size, device=device) + 0.5) / size
    y = (torch.arange(size, device=device) + 0.5)[:, None] / size
    image = _sky(view, look, heaps)
    labels = torch.full_like(heaps, SKY)
    columns = _Columns(view, look, x, size)
    _paint_hills(columns, x, y, image, labels)
    _paint_side_walls(columns, y, image, labels)
    _paint_fronts(columns, y, image, labels)
    _paint_ground(columns, x, y, image, labels)
    return image, labels


def paint_bonnet(view: View, look: Look, image: Float[Tensor, "B 3 H W"], labels: Float[Tensor, "B H W"]) -> None:
    """The camera's own car at the lower edge: void, as nobody labels it."""
    size = image.shape[2]
    x = (torch.arange(2 * size, device=image.device) + 0.5) / size - 1
    y = (torch.arange(size, device=image.device) + 0.5)[:, None] / size
    first = size - size // 6
    y, image, labels = y[first:], image[:, :, first:], labels[:, first:]
    paint = rgb((look.bonnet,), image.device)[..., None, None]
    for rise, colour in ((1.0, 0.55 * paint), (0.85, paint), (0.3, 0.6 * paint + 0.3)):
        top = 1 - view.bonnet[:, None] * (rise * 1.2 - 0.45 * x * x)
        cover = _below(y, top)
        _paint(image, cover, colour)
        if rise == 1:
            _mark(labels, cover, float(VOID))


def _below(y: Float[Tensor, "h 1"], row: Float[Tensor, "B w"]) -> Float[Tensor, "B h w"]:
    """How much of each pixel lies below a line whose row is given for each column, in image heights."""
    size = row.shape[1] // 2
    return (y * size - (row * size - 0.5)[:, None]).clamp_(0, 1)


def _paint(image: Float[Tensor, "B 3 h w"], cover: Float[Tensor, "B h w"], colour: Tensor) -> None:
    """Lay a colour [B or none, 3, h or 1, w or 1] over what it covers."""
    image.lerp_(colour.expand_as(image), cover[:, None].expand_as(image))


def _mark(labels: Float[Tensor, "B h w"], cover: Float[Tensor, "B h w"], value: float | Tensor) -> None:
    """Label what is covered by more than half. In floats and without a mask, which is ten times faster."""
    value = torch.full((1, 1, 1), value, device=labels.device) if isinstance(value, float) else value[:, None]
    labels.lerp_(value.expand_as(labels), cover.round())


def _sky(view: View, look: Look, heaps: Float[Tensor, "B H W"]) -> Float[Tensor, "B 3 H W"]:
    """A gradient with clouds: crisp heaps where the picture is sharp, soft ones elsewhere."""
    top, bottom = rgb(look.sky, heaps.device)[:, :, None, None]
    size = heaps.shape[1]
    rows = (torch.arange(size, device=heaps.device) + 0.5)[:, None] / size
    fall = (rows / view.horizon[:, None, None]).clamp(max=1)[:, None]
    image = (top + (bottom - top) * fall).expand(-1, -1, -1, 2 * size).contiguous()
    cover = (heaps - 0.75 + 0.35 * view.cloud[:, None, None]).mul_(4.0 if look.blur else 14.0).clamp_(0, 0.85)
    _paint(image, cover, 0.4 * bottom + 0.6)
    return image


def _wave(t: Tensor) -> Tensor:
    """Distance to the nearest whole number, 0 to 0.5."""
    return (t - t.round()).abs_()


class _Columns:
    """What every column of pixels meets: which plot, how far away (`z`), where along it; a batch of B x w columns.

    `part` is the place within the plot, 0 to 1; `per_pixel` and `stride` are the metres that one pixel covers upwards
    and along the front.
    """

    def __init__(self, view: View, look: Look, x: Float[Tensor, "w"], size: int):
        self.view, self.look, self.size = view, look, size
        self.u = (x - view.vanishing[:, None]) / FOCAL
        right, end = self.u > 0, view.end[:, None]
        self.plane = torch.where(right, view.right_front[:, None], -view.left_front[:, None])
        ahead = self.plane / self.u.abs().clamp(min=1e-4)
        self.at_end = ahead > end
        self.z = torch.where(self.at_end, end, ahead)
        self.row = torch.where(self.at_end, 2, right.long())
        self.width, self.start = view.widths.gather(1, self.row), view.starts.gather(1, self.row)
        self.along = torch.where(self.at_end, self.u * end, self.z) + self.start
        self.plot = (self.along / self.width).floor().clamp(0, _PLOTS - 1)
        self.part = self.along / self.width - self.plot
        self.per_pixel = self.z / (FOCAL * size)
        self.stride = torch.where(self.at_end, self.per_pixel, self.per_pixel * self.z / self.plane)
        self.light = 1 - 0.35 * view.sun[:, None] * (self.u * view.side[:, None] > 0)

    def of(self, name: str, step: int = 0) -> Tensor:
        """A property of the plot in front, or of the one `step` plots behind it."""
        table = self.view.plots[name]
        at = self.row * _PLOTS + (self.plot + step).clamp(max=_PLOTS - 1).long()
        return table.gather(1, at) if table.ndim == 2 else table.gather(1, at[..., None].expand(-1, -1, 3))

    def line(self, height: Tensor | float, z: Tensor | None = None) -> Float[Tensor, "B w"]:
        """The row, in image heights, at which something of this height ends."""
        distance = self.z if z is None else z
        return self.view.horizon[:, None] - FOCAL * (height - self.view.eye[:, None]) / distance

    def seen(self, colour: Float[Tensor, "B w 3"], z: Tensor | None = None) -> Float[Tensor, "B 3 1 w"]:
        return hazy(colour, self.z if z is None else z, self.view.haze, self.look).mT[:, :, None]

    def repeats(self, count: Tensor | int, half: float) -> Float[Tensor, "B w"]:
        """`count` openings along each plot, of `half` their distance to either side: how much of a column they take."""
        at = self.part * count
        return ((half - (at - at.floor() - 0.5).abs()) * (self.width / count) / self.stride + 0.5).clamp(0, 1)


def _paint_hills(columns: _Columns, x: Tensor, y: Tensor, image: Tensor, labels: Tensor) -> None:
    view = columns.view
    waves = sum(_wave(x * (0.31 + 0.27 * k) + 7 * bump[:, None]) for k, bump in enumerate(view.bumps.unbind(1)))
    cover = _below(y, view.horizon[:, None] - view.hills[:, None] * (0.4 + 0.7 * waves))
    colour = view.hill_colour[:, None].expand(-1, len(x), -1)
    _paint(image, cover, columns.seen(colour, torch.full_like(columns.z, 60.0)))
    _mark(labels, cover, float(TREE))


def _paint_side_walls(columns: _Columns, y: Tensor, image: Tensor, labels: Tensor) -> None:
    """The walls that the next houses turn to the camera, seen above a lower neighbour or behind a garden."""
    for step in (2, 1):
        z = (columns.plot + step) * columns.width - columns.start
        depth = columns.u.abs() * z - columns.plane
        stands = (columns.plot + step < _PLOTS) & ~columns.at_end & (z < columns.view.end[:, None])
        stands &= ~columns.of("garden", step) & (depth < _HOUSE_DEPTH)
        ridge = (1 - (2 * depth / _HOUSE_DEPTH - 1).abs()) * ~columns.of("gable", step)
        top = columns.line(columns.of("eaves", step) + columns.of("roof", step) * ridge, z)
        cover = _below(y, torch.where(stands, top, _NOWHERE))
        shade = 0.75 - 0.2 * columns.view.sun[:, None] * (columns.u * columns.view.side[:, None] < 0)
        _paint(image, cover, columns.seen(columns.of("facade", step) * shade[..., None], z))
        _mark(labels, cover, float(BUILDING))


def _paint_fronts(columns: _Columns, y: Tensor, image: Tensor, labels: Tensor) -> None:
    """House fronts and hedges, along the street and across its far end, with the fences before them."""
    garden, gable, light = columns.of("garden"), columns.of("gable"), columns.light[..., None]
    slope = 1 - (2 * columns.part - 1).abs()
    bushes = 0.4 + _wave(columns.part * 4 + columns.of("phase")) + 0.9 * _wave(columns.part * 7.3)
    rise = torch.where(garden, bushes, torch.where(gable, slope, (7 * slope).clamp(max=1)))
    top = columns.line(columns.of("eaves") + columns.of("roof") * rise)
    top = torch.where(columns.at_end & (columns.view.end[:, None] >= OPEN), _NOWHERE, top)
    front = columns.seen(columns.of("facade") * light).expand_as(image).contiguous()
    _paint_openings(columns, y, front)
    tiled = 1 - _below(y, torch.where(gable & ~garden, -_NOWHERE, columns.line(columns.of("eaves"))))
    _paint(front, tiled, columns.seen(columns.of("roof colour") * light))
    cover = _below(y, top)
    image.lerp_(front, cover[:, None].expand_as(image))
    _mark(labels, cover, torch.where(garden, TREE, BUILDING).float())

    railing = columns.of("railing") & (columns.z < OPEN)
    cover = _below(y, torch.where(railing, columns.line(columns.of("fence")), _NOWHERE))
    pickets = ((0.3 - _wave(columns.along * 1.4)) * (0.7 / columns.stride) + 0.5).clamp(0, 1)
    _paint(image, cover, columns.seen(columns.of("fence colour") * light * (0.6 + 0.4 * pickets)[..., None]))
    _mark(labels, cover, float(FENCE))


def _paint_openings(columns: _Columns, y: Tensor, front: Float[Tensor, "B 3 h w"]) -> None:
    """Windows, shop windows below awnings, doors."""
    of, line, house = columns.of, columns.line, ~columns.of("garden")
    glass = columns.seen(rgb((columns.look.glass,), front.device).expand(*columns.z.shape, 3))
    many = (columns.width / of("spacing")).round()
    storey = of("storey")
    down = (y - line(of("eaves"))[:, None]) * (columns.z / FOCAL / storey)[:, None]
    floor = down.floor()
    opening = (floor + 0.55).sub_(down).abs_().neg_().add_(0.29).mul_((storey / columns.per_pixel)[:, None]).add_(0.5)
    dim = floor.mul_(0.37).add_(((columns.part * many).floor() * 0.618 + of("phase"))[:, None])
    dim = dim.sub_(dim.floor()).mul_(0.45).add_(0.55)
    across = columns.repeats(many, 0.27) * house
    _paint(front, opening.clamp_(0, 1).mul_(dim).mul_(across[:, None]).mul_(down > 0), glass)

    shop = of("shop")
    below_awning = _below(y, torch.where(shop, line(2.5), _NOWHERE))
    _paint(front, below_awning * (0.9 * columns.repeats(3, 0.42))[:, None], glass)
    awning = _below(y, torch.where(shop, line(3.3), _NOWHERE)).sub_(below_awning)
    _paint(front, awning, columns.seen(of("accent") * columns.light[..., None]))
    door = ((0.55 - (columns.part - 0.5).abs() * columns.width) / columns.stride + 0.5).clamp(0, 1) * (house & ~shop)
    _paint(front, _below(y, line(2.3)).mul_(door[:, None]), columns.seen(of("accent") * 0.8))


def _paint_ground(columns: _Columns, x: Tensor, y: Tensor, image: Tensor, labels: Tensor) -> None:
    """Pavements, road, kerbs, lines, a zebra crossing, the shadow of the houses on the sunny side."""
    view, look, size = columns.view, columns.look, columns.size
    first = int(size * look.horizon[0])
    y, image, labels = y[first:], image[:, :, first:], labels[:, first:]
    z = view.eye[:, None] * FOCAL / (y.T - view.horizon[:, None]).clamp(min=1e-3)
    pixels_per_metre = FOCAL * size / z

    def strip(middle: Tensor, half: Tensor | float) -> Float[Tensor, "B h w"]:
        """How much of each pixel lies on a strip along the street: its middle and half its width, in metres."""
        centre = view.vanishing[:, None] * size + middle[:, None] * pixels_per_metre
        reach = half * pixels_per_metre
        cover = (x * size - centre[..., None]).abs_().neg_().add_(reach[..., None] + 0.5)
        return torch.minimum(cover.clamp_(min=0), (2 * reach).clamp(max=1)[..., None])

    def seen(colour: Float[Tensor, "B 3"]) -> Float[Tensor, "B 3 h 1"]:
        return hazy(colour[:, None].expand(-1, len(y), -1), z, view.haze, look).mT[..., None]

    count = len(view.seeds)
    white = rgb(("e6e6e0",), z.device).expand(count, -1)
    slabs = 1 - 0.1 * ((z * 0.8).floor() % 2) * (z < 18)
    ground = (seen(view.paving) * slabs[:, None, :, None]).expand_as(image).contiguous()
    middle, half = (view.left + view.right) / 2, ((view.right - view.left) / 2)[:, None]
    _paint(ground, strip(middle, half + 0.2), seen(view.paving * 0.72 + 0.2))
    road = strip(middle, half)
    _paint(ground, road, seen(view.asphalt))

    # Dashes are 3 m of every 7 m; where a row covers more than that they blur into a faint line.
    row_depth = z * z / (view.eye[:, None] * FOCAL * size)
    dash = ((0.22 - _wave(z / 7 + view.dash[:, None])) * 7 / row_depth + 0.5).clamp(0, 1)
    _paint(ground, strip(middle, 0.11) * dash[..., None], seen(rgb((look.line,), z.device).expand(count, -1)))
    for edge in (view.left + 0.5, view.right - 0.5):
        _paint(ground, strip(edge, 0.07) * 0.8, seen(white))
    across = ((1.6 - (z - view.crossing[:, None]).abs()) / row_depth + 0.5).clamp(0, 1)
    metres = (x - view.vanishing[:, None])[:, None] * (z / FOCAL)[..., None]
    bars = _wave(metres).sub_(0.25).mul_(pixels_per_metre[..., None]).add_(0.5).clamp_(0, 1)
    _paint(ground, bars.mul_(road).mul_(across[..., None]), seen(white))

    wall = torch.where(view.side > 0, view.right_front, view.left_front)
    shadow = strip(wall, view.shadow[:, None])
    ground.mul_(1 - (0.5 * view.sun)[:, None, None, None] * shadow[:, None])

    cover = _below(y, columns.line(0.0))
    image.lerp_(ground, cover[:, None].expand_as(image))
    _mark(labels, cover, float(PAVEMENT))
    _mark(labels, cover.mul_(road.round_()), float(ROAD))
