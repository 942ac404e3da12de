"""Losses in the space of prototypes: telling images apart, and telling an object from its background.

Derived in notebook 40. From RtD (Wang et al., "Remember the Difference", CVPR 2022), L_cont and L_pro; no code was
released.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from fsslib.blocks.similarity import prototype_logits
from fsslib.episodes import VOID


def prototype_contrastive_loss(
    anchors: Float[Tensor, "B C"],
    positives: Float[Tensor, "B C"],
    class_ids: Int[Tensor, "B"] | None = None,
    *,
    temperature: float = 0.1,
    symmetric: bool = True,
) -> Float[Tensor, ""]:
    """Pull each prototype to its partner and push it from the prototypes of the other images: the mean over anchors of
    -log pos / (pos + neg).

    For anchor i, with s the cosine over `temperature`: pos = exp s(a_i, p_i), neg = sum over j != i of
    exp s(a_i, a_j) + exp s(a_i, p_j). With `class_ids` the images of the same class are left out of neg; None takes all
    as different. Partners are whatever the caller holds to be the same thing: in RtD a prototype of the plain support
    (anchor) and of its re-styled twin (positive).

    `symmetric=True` lets anchors and positives change places as well and averages over all 2 B terms: with distinct
    classes it is the NT-Xent loss of SimCLR. RtD prints L_cont = 1 / (2 B) sum_i of B terms without a temperature:
    `symmetric=False, temperature=1.0`. That form is half a mean, and cannot come near zero: with cosines between 0 and
    1 a term is at least log(1 + 2 (B - 1) / e), 1.82 for 8 images.

    Nothing to push from, because of a batch of one or a single class, costs 0. A zero prototype (an empty mask) has the
    cosine 0 to everything. Computed in float32 at least, under autocast too, from logits of any size.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is above 0; found {temperature}. A smaller one makes the loss sharper.")
    count, device = len(anchors), anchors.device
    both = torch.cat([anchors, positives])
    unit = F.normalize(both.to(torch.promote_types(both.dtype, torch.float32)), dim=1, eps=1e-8)
    # A product and a sum, since autocast would run a matrix product in bfloat16.
    logits = (unit[:, None] * unit).sum(2) / temperature

    image = torch.arange(count, device=device)
    ids = (image if class_ids is None else class_ids).repeat(2)
    partner = torch.cat([image + count, image])
    left_out = ids[:, None] == ids
    left_out[torch.arange(2 * count, device=device), partner] = False
    terms = F.cross_entropy(logits.masked_fill(left_out, -torch.inf), partner, reduction="none")
    return terms.mean() if symmetric else terms[:count].sum() / (2 * count)


def prototype_segmentation_loss(
    features: Float[Tensor, "B C h w"],
    fg_prototype: Float[Tensor, "B C"],
    bg_prototype: Float[Tensor, "B C"],
    labels: Int[Tensor, "B H W"],
    *,
    scale: float = 20.0,
) -> Float[Tensor, ""]:
    """Cross-entropy of the query's labels against the nearer of two prototypes, the mean over all pixels but void.

    R = softmax of `scale` times the cosine to {background, foreground}, brought to the size of `labels` bilinearly
    before the softmax; `labels` holds 0, 1 and 255 (void). RtD prints L_pro = -1/(HW) sum Y log R(f, p): with Y the
    mask, the object's pixels alone count, and R = 1 everywhere, all foreground, would be a perfect answer. Here the
    background's pixels count too; the scale is PANet's.

    Labels that are void throughout cost 0. A zero prototype (an empty mask) has the logit 0 everywhere. Computed in
    float32 at least, under autocast too.
    """
    logits = prototype_logits(features, fg_prototype, bg_prototype, scale=scale)
    logits = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="sum")
    return total / (labels != VOID).sum().clamp(min=1)
