"""Random numbers as a function of (seed, stream, position): the same picture on every device and in every batch.

A generator with hidden state would make image 7 depend on which images were drawn before it. Here every number is the
hash of its own address, so that a batch, a single image, a CPU and a GPU agree, and nothing has to be replayed.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def hash32(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Scramble int32 values: the 32-bit finaliser of MurmurHash3 (A. Appleby, public domain), wrap-around intended."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * -2048144789
    x = x ^ ((x >> 13) & 0x7FFFF)
    x = x * -1028477387
    return x ^ ((x >> 16) & 0xFFFF)


def uniform(seeds: Int[Tensor, "B"], stream: int, *shape: int) -> Float[Tensor, "B ..."]:
    """Uniform numbers in [0, 1) of shape [B, *shape]; each depends on its seed, the stream and its position alone."""
    count = int(torch.Size(shape).numel())
    start = hash32(hash32(seeds.to(torch.int32)) + (stream * 0x9E3779B) % 0x7FFFFFFF)
    position = torch.arange(count, dtype=torch.int32, device=seeds.device) * 0x3504F333
    bits = hash32(start[:, None] ^ position[None, :])
    return ((bits >> 8) & 0xFFFFFF).to(torch.float32).mul_(2.0**-24).view(len(seeds), *shape)


def clouds(
    seeds: Int[Tensor, "B"], stream: int, size: int, *, coarsest: int = 2, octaves: int = 5, persistence: float = 0.6
) -> Float[Tensor, "B size size"]:
    """Noise with a falling spectrum, roughly in [0, 1] with mean 0.5: grids of 2, 4, 8 ... cells, each weaker."""
    total = torch.zeros(len(seeds), size, size, device=seeds.device)
    weights = [persistence**octave for octave in range(octaves) if coarsest * 2**octave <= size]
    for octave, weight in enumerate(weights):
        cells = coarsest * 2**octave
        stretch = _stretching(cells, size, seeds.device)
        total += (1.6 * weight / sum(weights)) * (
            stretch @ (uniform(seeds, stream + octave, cells, cells) - 0.5) @ stretch.T
        )
    return total.add_(0.5).clamp_(0, 1)


def _stretching(cells: int, size: int, device: torch.device) -> Float[Tensor, "size cells"]:
    """The matrix of linear interpolation from `cells` to `size` points: two products beat `interpolate` fivefold."""
    at = torch.linspace(0, cells - 1, size, device=device)[:, None]
    return (1 - (at - torch.arange(cells, device=device)).abs()).clamp_(min=0)
