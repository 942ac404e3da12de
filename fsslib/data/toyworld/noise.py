"""Random numbers as a function of (seed, stream, position): the same picture on every device and in every batch.

A generator with hidden state would make image 7 depend on which images were drawn before it. Here every number is the
hash of its own address, so that a batch, a single image, a CPU and a GPU agree, and nothing has to be replayed.
"""

import functools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def hash32(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Scramble int32 values: the 32-bit finaliser of MurmurHash3 (A. Appleby, public domain), wrap-around intended."""
    # In two buffers that are used again and again: fresh memory for every step would take longer than the steps.
    shifted = (x >> 16).bitwise_and_(0xFFFF)
    x = (x ^ shifted).mul_(-2048144789)
    torch.bitwise_right_shift(x, 13, out=shifted).bitwise_and_(0x7FFFF)
    x.bitwise_xor_(shifted).mul_(-1028477387)
    torch.bitwise_right_shift(x, 16, out=shifted).bitwise_and_(0xFFFF)
    return x.bitwise_xor_(shifted)


def uniform(seeds: Int[Tensor, "B"], stream: int, *shape: int) -> Float[Tensor, "B ..."]:
    """Uniform numbers in [0, 1) of shape [B, *shape]; each depends on its seed, the stream and its position alone."""
    addresses = _starts(seeds, [stream]) ^ _positions(math.prod(shape), seeds.device)
    return _fractions(hash32(addresses)).view(len(seeds), *shape)


def clouds(
    seeds: Int[Tensor, "B"], stream: int, size: int, *, coarsest: int = 2, octaves: int = 5, persistence: float = 0.6
) -> Float[Tensor, "B size size"]:
    """Noise with a falling spectrum, roughly in [0, 1] with mean 0.5: grids of 2, 4, 8 ... cells, each weaker.

    Octave k, n = coarsest 2^k cells wide, is w S U S^T: U holds `uniform(seeds, stream + k, n, n) - 0.5`, S
    interpolates linearly from cells to pixels, w falls with k. As matrix products that is several times faster than
    `interpolate`. The factors U S^T of all octaves are laid below each other, so that one product with all w S side by
    side also adds the octaves up.
    """
    cells = tuple(coarsest * 2**octave for octave in range(octaves) if coarsest * 2**octave <= size)
    areas = [n * n for n in cells]
    starts = _starts(seeds, range(stream, stream + len(cells)))
    addresses = torch.empty(len(seeds), sum(areas), dtype=torch.int32, device=seeds.device)
    for octave, part in enumerate(addresses.split(areas, 1)):
        torch.bitwise_xor(starts[:, octave, None], _positions(areas[octave], seeds.device), out=part)
    grids = _fractions(hash32(addresses)).sub_(0.5).split(areas, 1)

    stretches, weighted = _stretches(cells, persistence, size, seeds.device)
    right = [grid.reshape(-1, n) @ stretch.T for grid, n, stretch in zip(grids, cells, stretches)]
    right = torch.cat([product.view(len(seeds), -1, size) for product in right], 1)
    # bmm reads the shared left factor where it is; matmul would rearrange the right one.
    return torch.bmm(weighted.expand(len(seeds), -1, -1), right).add_(0.5).clamp_(0, 1)


def _starts(seeds: Int[Tensor, "B"], streams: Sequence[int]) -> Int[Tensor, "B streams"]:
    """Where each stream of each seed begins."""
    offsets = [(stream * 0x9E3779B) % 0x7FFFFFFF for stream in streams]
    return hash32(
        hash32(seeds.to(torch.int32))[:, None] + torch.tensor(offsets, dtype=torch.int32, device=seeds.device)
    )


@functools.lru_cache(maxsize=64)
def _positions(count: int, device: torch.device) -> Int[Tensor, "count"]:
    return torch.arange(count, dtype=torch.int32, device=device) * 0x3504F333


def _fractions(bits: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The upper 24 of 32 bits as a fraction in [0, 1). Overwrites `bits`."""
    return bits.bitwise_right_shift_(8).bitwise_and_(0xFFFFFF).to(torch.float32).mul_(2.0**-24)


@functools.lru_cache(maxsize=64)
def _stretches(
    cells: tuple[int, ...], persistence: float, size: int, device: torch.device
) -> tuple[list[Tensor], Float[Tensor, "size all_cells"]]:
    """For each octave the matrix of linear interpolation from cells to `size` points; all side by side, weighted."""
    weights = [persistence**octave for octave in range(len(cells))]
    stretches = []
    for n in cells:
        at = torch.linspace(0, n - 1, size, device=device)[:, None]
        stretches.append((1 - (at - torch.arange(n, device=device)).abs()).clamp_(min=0))
    return stretches, torch.cat([s * (1.6 * w / sum(weights)) for s, w in zip(stretches, weights)], 1)
