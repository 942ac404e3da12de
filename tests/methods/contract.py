"""Small episodes and method builders for the one contract test over all methods."""

import torch

from fsslib.episodes import VOID, Episode
from fsslib.methods import METHODS, build_method
from fsslib.methods.base import Method


def small_method(name: str) -> Method:
    torch.manual_seed(0)
    return build_method(name)


def random_episode(*, batch=2, ways=1, shots=1, height=32, width=32, seed=0) -> Episode:
    """An episode of noise with a square of each way in its support and its query, and a stripe of void in both."""
    generator = torch.Generator().manual_seed(seed)
    support_masks = torch.zeros(batch, ways, shots, height, width, dtype=torch.int64)
    support_masks[..., 4:14, 4:14] = 1
    support_masks[..., 0, :] = VOID
    query_labels = torch.zeros(batch, height, width, dtype=torch.int64)
    for way in range(ways):
        query_labels[:, 8:16, 6 * way + 2 : 6 * way + 8] = way + 1
    query_labels[:, -1] = VOID
    return Episode(
        support_images=torch.rand(batch, ways, shots, 3, height, width, generator=generator),
        support_masks=support_masks,
        query_images=torch.rand(batch, 3, height, width, generator=generator),
        query_labels=query_labels,
        class_ids=torch.arange(1, ways + 1).expand(batch, ways),
    )


ALL_METHODS = sorted(METHODS)
