"""Silhouettes and textures, each one line of arithmetic on object coordinates.

Coordinates x (right) and y (down) are in units of the object's radius. A silhouette returns a rough signed distance to
its outline, positive inside. A texture returns values in [0, 1] that mix the object's two colours; `phase` in [0, 1)
shifts it, so that two objects of a class are never the same pattern.
"""

import math

import torch
from torch import Tensor


def _angle(x: Tensor, y: Tensor) -> Tensor:
    return torch.atan2(y, x)


def _radius(x: Tensor, y: Tensor) -> Tensor:
    return (x * x).add_(y * y).sqrt_()


def _triangle_wave(t: Tensor) -> Tensor:
    """Period 1, values 0..1, 0 at whole numbers."""
    return (t - t.round()).abs_().mul_(2)


def _step(t: Tensor) -> Tensor:
    """A soft edge at 0.5, so that patterns are not jagged."""
    return t.sub_(0.5).mul_(4).add_(0.5).clamp_(0, 1)


def _star(x: Tensor, y: Tensor) -> Tensor:
    return (1.0 - 0.58 * _triangle_wave(_angle(x, y).mul_(5 / (2 * math.pi)))).sub_(_radius(x, y))


def _flower(x: Tensor, y: Tensor) -> Tensor:
    return _angle(x, y).mul_(6).cos_().mul_(0.24).add_(0.76).sub_(_radius(x, y))


def _block(x: Tensor, y: Tensor) -> Tensor:
    return 0.78 - torch.maximum(x.abs(), y.abs())


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return 0.52 - torch.maximum(y - 0.1, 0.866 * x.abs() - 0.5 * (y - 0.1))


def _cross(x: Tensor, y: Tensor) -> Tensor:
    a, b = x.abs(), y.abs()
    return torch.maximum(torch.minimum(0.95 - a, 0.34 - b), torch.minimum(0.34 - a, 0.95 - b))


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return 0.3 - (_radius(x, y) - 0.66).abs()


def _crescent(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(0.95 - _radius(x, y), _radius(x - 0.5, y) - 0.68)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    return 0.62 - ((x * 0.95) ** 2 + (y + 0.12 - 0.55 * x.abs()) ** 2).sqrt()


def _capsule(x: Tensor, y: Tensor) -> Tensor:
    return 0.36 - _radius((x.abs() - 0.62).clamp(min=0), y)


def _bow(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(0.92 - x.abs(), 0.16 + 0.62 * x.abs() - y.abs())


SILHOUETTES = {
    "star": _star,
    "flower": _flower,
    "block": _block,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
    "crescent": _crescent,
    "heart": _heart,
    "capsule": _capsule,
    "bow": _bow,
}


def _striped(x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    return _step(_triangle_wave((1.9 * x).add_(phase)))


def _checked(x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    across, down = (_triangle_wave((0.95 * t).add_(phase)).sub_(0.5) for t in (x, y))
    return across.mul_(down).mul_(40).add_(0.5).clamp_(0, 1)


def _dotted(x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    u, v = ((2.0 * t).add_(phase) for t in (x, y))
    return _step(1.25 - 2.2 * _radius(u.sub_(u.floor()).sub_(0.5), v.sub_(v.floor()).sub_(0.5)))


def _ringed(x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    return _step(_triangle_wave(_radius(x, y).mul_(2.2).add_(phase)))


def _zigzag(x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    return _step(_triangle_wave(1.8 * y + 0.8 * _triangle_wave(1.5 * x) + phase))


def _bricked(x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    v = 2.4 * y + phase
    row = v.floor()
    u = 1.2 * x + phase + 0.5 * row
    mortar = torch.minimum((u - u.floor()) * 2.0, v - row)
    return (mortar * 7 - 1).clamp(0, 1)


def _meshed(x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    u, v = 1.5 * (x + y) + phase, 1.5 * (x - y) + phase
    return 1 - (torch.minimum(1 - _triangle_wave(u), 1 - _triangle_wave(v)) * 5 - 0.6).clamp(0, 1)


def _wavy(x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    return _step(0.5 + 0.5 * torch.sin(2 * math.pi * (1.3 * y + phase) + 2.6 * torch.sin(4.2 * x)))


def _rayed(x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    return _step(_triangle_wave(_angle(x, y).mul_(9 / (2 * math.pi)).add_(phase)))


def _harlequin(x: Tensor, y: Tensor, phase: Tensor) -> Tensor:
    """Long slanted lozenges: a harlequin pattern."""
    return _step(0.5 * _triangle_wave(2.2 * x + 0.7 * y + phase) + 0.5 * _triangle_wave(2.2 * x - 0.7 * y))


TEXTURES = {
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
    "ringed": _ringed,
    "zigzag": _zigzag,
    "bricked": _bricked,
    "meshed": _meshed,
    "wavy": _wavy,
    "rayed": _rayed,
    "harlequin": _harlequin,
}
