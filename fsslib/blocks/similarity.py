"""Similarity guidance: how alike is each place of the query to the prototype, and merging ways into one answer.

Derived in notebook 20.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def cosine_similarity_map(
    features: Float[Tensor, "B C h w"], prototype: Float[Tensor, "B C"], *, eps: float = 1e-8
) -> Float[Tensor, "B h w"]:
    """The cosine between a prototype and every place of a feature map: s(x,y) = <v, F(x,y)> / (|v| |F(x,y)|).

    The similarity guidance map of SG-One, in [-1, 1] up to rounding. Scale-free in both arguments. A zero prototype (an
    empty mask) or a zero feature gives 0: norms are kept from below by `eps`, as torch's `cosine_similarity` does.
    In float32 at least, under autocast and of bfloat16 features too: so near 1 that has steps of 0.004, and ties.
    """
    precise = torch.promote_types(features.dtype, torch.float32)
    wide = features.to(precise)
    unit_prototype = F.normalize(prototype.to(precise), dim=1, eps=eps)
    # A product and a sum, since autocast would run a matrix product in bfloat16.
    inner = (wide * unit_prototype[:, :, None, None]).sum(1)
    return inner / wide.norm(dim=1).clamp(min=eps)


def prototype_logits(
    features: Float[Tensor, "B C h w"],
    foreground: Float[Tensor, "B C"],
    background: Float[Tensor, "B C"],
    *,
    scale: float = 20.0,
) -> Float[Tensor, "B 2 h w"]:
    """Logits of {background, foreground}: `scale` times the cosine to its prototype. PANet's classifier and scale."""
    maps = [cosine_similarity_map(features, prototype) for prototype in (background, foreground)]
    return scale * torch.stack(maps, 1)


def merge_ways(
    binary: Float[Tensor, "B N 2 H W"], *, rule: Literal["arithmetic", "geometric"] = "arithmetic"
) -> Float[Tensor, "B ways_and_background H W"]:
    """N answers of "this way or not" as one score map over {background, 1..N}.

    From iFSL. The answers are probabilities, the two of a way add up to 1. Way n keeps its probability p_n; the
    background is the mean of the N values 1 - p_n: their arithmetic mean as the paper prints it, or their geometric
    mean as the released code computes it. The rules agree for one way. With N ways of which one is believed at p and
    the others at 0, the foreground wins for p > N / (N + 1), or for p > (1 - p)^(1/N). The maps do not add up to one
    for N > 1: they are scores, not a distribution.

    Raises ValueError when the two values of a way do not add up to one.
    """
    if not torch.allclose(binary.sum(2), torch.ones((), dtype=binary.dtype, device=binary.device), atol=1e-2):
        low, high = (value.item() for value in binary.sum(2).aminmax())
        raise ValueError(
            f"merge_ways takes probabilities: the two values of a way must add up to 1; found sums from {low:.3g} to "
            f"{high:.3g}. For logits [B, N, 2, H, W] pass logits.softmax(2)."
        )
    background, foreground = binary.unbind(2)
    if rule == "arithmetic":
        nothing = background.mean(1, keepdim=True)
    elif rule == "geometric":
        nothing = background.clamp(min=torch.finfo(background.dtype).tiny).log().mean(1, keepdim=True).exp()
    else:
        raise ValueError(f'Unknown rule {rule!r}; there are "arithmetic" and "geometric".')
    return torch.cat([nothing, foreground], 1)
