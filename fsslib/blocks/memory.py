"""The meta-memory: a small bank of styles, pairs of channel means and standard deviations, and what keeps them apart.

Derived in notebook 30. Wang, Duan, Wang, En, Fan, Zhang, "Remember the Difference: Cross-Domain Few-Shot Semantic
Segmentation via Meta-Memory Transfer" (RtD), CVPR 2022: the meta-memory module and its Figure 3. No code was released;
what the printed equations leave open is settled here:

1. The printed update weighs the samples of a batch for each item, and all items become the same vector. Here the items
   are weighed for each sample; `update="batch"` is the printed form.
2. `sim` and `h` are cosines, clamped at 0 where they are weights, absolute and centred in the orthogonality. Its
   gradient needs items that are parameters, not mere moving averages.
3. The "variance" under a root is the standard deviation. Printed, its items have weights of their own (one write-up has
   those of the means); the sound update keeps mean and deviation of a sample together, and so does the selection.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

EPS = 1e-5
"""Added to a variance before its root: no standard deviation, measured or remembered, is below its root."""


def feature_statistics(features: Float[Tensor, "B C h w"]) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B C"]]:
    """The style of an image: mean and standard deviation of each channel over its places, std = sqrt(var + 1e-5).

    Per image, as in instance normalisation, never over the batch; the variance is the biased one. A constant map has
    the deviation sqrt(1e-5) and finite gradients. Results are in float32 at least, whatever the features are in.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    mean = features.mean((2, 3))
    # Two passes: exact where the mean is large, and on a CPU several times as fast as torch.var_mean.
    variance = (features - mean[:, :, None, None]).square().mean((2, 3))
    return mean, (variance + EPS).sqrt()


def restyle(
    features: Float[Tensor, "B C h w"],
    mean: Float[Tensor, "B C"],
    std: Float[Tensor, "B C"],
    alpha: float | Float[Tensor, "B"],
) -> Float[Tensor, "B C h w"]:
    """Features with part of another style: f' = (f - own mean) / own std * std_mix + mean_mix, where a mix is `alpha`
    times the own plus (1 - alpha) times the other.

    AdaIN for alpha = 0, MixStyle when the other is another sample of the batch, RtD's enhancement when it is an item of
    the memory. alpha = 1 is the identity, exactly. Computed in float32 at least, returned in the features' dtype.
    """
    own_mean, own_std = feature_statistics(features)
    foreign = 1 - (alpha[:, None].to(own_mean) if isinstance(alpha, Tensor) else alpha)
    # One product and one sum over the map, by exactly 1 and 0 for alpha = 1 and for the own style.
    scale = 1 + foreign * (std / own_std - 1)
    shift = own_mean + foreign * (mean - own_mean) - scale * own_mean
    return (features * scale[:, :, None, None] + shift[:, :, None, None]).to(features.dtype)


def orthogonality_loss(
    mean_items: Float[Tensor, "J C"], std_items: Float[Tensor, "J C"], *, centred: bool = True, diagonal: bool = False
) -> Float[Tensor, ""]:
    """How alike the items are: the mean of |cos(m_i, m_j)| over pairs i != j, averaged with the same of the deviations.

    RtD prints L_orth = 1 / (2 J^2) sum_ij (h_M[i,j] + h_E[i,j]) without defining h: that is `centred=False,
    diagonal=True` with h = |cos|. It has two faults. With the diagonal, orthogonal items still cost 1 / J. And means
    after a ReLU and deviations are nowhere negative: orthogonal ones share no channel, which is like no style there is.
    Hence the mean item is subtracted first; a regular simplex then costs 1 / (J - 1). Items that are all the same get
    no gradient in either form: keeping them distinct is the update's work.

    Raises ValueError where it is a constant: two centred items are opposite whatever they are, one has no pair.
    """
    items = len(mean_items)
    if items < (3 if centred else 2):
        raise ValueError(f"Orthogonality is a constant below 3 items, or 2 with centred=False; found {items}.")
    banks = [bank - bank.mean(0) if centred else bank for bank in (mean_items, std_items)]
    total = sum(_cosines(bank, bank).abs() for bank in banks)
    if diagonal:
        return total.mean() / 2
    return (total - total.diagonal().diag()).sum() / (2 * items * (items - 1))


class MetaMemory(nn.Module):
    """J styles of the source domain: `mean` [J, C] and `std` [J, C], which `store` writes and `select`, `enhance` read.

    The first J different samples become the items, in their order; `filled` counts them. From then on a write is a soft
    k-means step with a moving average (`update="assign"`): sample b goes to item j with the weight

        a_bj = softmax over j of cos(z_b, z_j) / temperature,     z = [mean; std] - running mean of both

    and item j moves by (1 - ema) min(w_j, 1) towards the a-weighted mean of the samples, w_j = sum_b a_bj, mean and
    deviation alike. Items with w_j < 1e-3 stay. An item that was no sample's nearest for `reseed_after` writes takes
    the sample that is least like any item, at most one item a write.

    `update="batch"` is the printed form. For means and deviations apart, with sim = max(cos, 0),

        s_jb = sim(m_j, mean_b) / sum_b' sim(m_j, mean_b'),     m_j <- ema m_j + (1 - ema) sum_b s_jb mean_b

    Statistics that are nowhere negative are all alike, so each s_jb is about 1 / B, every item moves to the batch mean,
    and differences decay like ema^t. An item unlike the whole batch only shrinks.

    Only `orthogonality` has a gradient for the items: `select` and `enhance` read them detached, `store` belongs into a
    method's `after_step`. The state dict holds all there is, in tensors of fixed size, float32 under autocast too.
    """

    def __init__(
        self,
        channels: int,
        items: int = 32,
        ema: float = 0.99,
        update: Literal["assign", "batch"] = "assign",
        joint: bool = True,
        temperature: float = 0.05,
        reseed_after: int = 200,
    ):
        super().__init__()
        if update not in ("assign", "batch"):
            raise ValueError(f'update is "assign" or "batch"; found {update!r}.')
        if min(items, reseed_after) < 1 or not 0 <= ema <= 1 or not temperature > 0:
            found = f"{items=}, {reseed_after=}, {ema=}, {temperature=}"
            raise ValueError(f"items, reseed_after >= 1, ema in [0, 1] and temperature > 0 are needed; found {found}.")
        self.ema, self.update, self.joint = ema, update, joint
        self.temperature, self.reseed_after = temperature, reseed_after
        self.mean = nn.Parameter(torch.zeros(items, channels))
        self.std = nn.Parameter(torch.ones(items, channels))
        self.register_buffer("filled", torch.tensor(0))
        self.register_buffer("writes", torch.tensor(0))
        self.register_buffer("idle", torch.zeros(items, dtype=torch.int64))  # writes since it was a sample's nearest
        self.register_buffer("centre", torch.zeros(2 * channels))  # the running mean of means and deviations

    def parameter_group(self) -> dict[str, Any]:
        """The items as an optimiser's group: no weight decay, and no momentum in SGD or Adam.

        Both would go on moving items that `store` has just written. Adam's steps are as large as the rate however small
        the gradient: 1e-3 drags the items off every style there, and does not in SGD.
        """
        still = {"weight_decay": 0.0, "momentum": 0.0, "betas": (0.0, 0.999)}
        return {"name": "memory", "params": [self.mean, self.std], **still}

    @torch.no_grad()
    def store(self, mean: Float[Tensor, "B C"], std: Float[Tensor, "B C"]) -> None:
        """Write the styles of a batch, as `feature_statistics` gives them; a batch of one will do. Figure 3 (a).

        The order of samples counts only while free items are filled. Raises ValueError for a value that is no finite
        number, before anything is written.
        """
        mean, std = mean.to(self.mean), std.to(self.std)
        finite = (mean.isfinite() & std.isfinite()).all(1)
        if not finite.all():
            bad = f"{(~finite).sum()} of {len(finite)} samples have statistics that are not finite"
            raise ValueError(f"{bad}: nothing was stored. Look for NaN in the features, or for a loss that diverged.")
        # A plain mean of the batches at first, a moving average later.
        self.writes += 1
        self.centre.lerp_(torch.cat([mean, std], 1).mean(0), (1 / self.writes.to(mean)).clamp(min=1 - self.ema))
        mean, std = self._fill(mean, std)
        if len(mean):
            (self._assign if self.update == "assign" else self._mix_batch)(mean, std)
        self.std.clamp_(min=EPS**0.5)

    @torch.no_grad()
    def select(
        self,
        mean: Float[Tensor, "B C"],
        std: Float[Tensor, "B C"],
        rule: Literal["lowest", "highest", "random"],
    ) -> Int[Tensor, "B 2"]:
        """For each sample the item of which the mean, and the item of which the deviation is to be taken.

        RtD: "lowest" on the source, to make a sample foreign; "highest" on the target, to bring it home; "random" is a
        control. By the largest or smallest (cos(m_j, mean_b) + cos(e_j, std_b)) / 2, so both columns agree; with
        `joint=False` each by its own cosine, which can join a mean and a deviation that never occurred together. Free
        items are never selected; where all are free the index is 0 and `enhance` does nothing.
        """
        if rule == "random":
            scores = torch.rand(2, len(mean), len(self.mean), device=mean.device)
        elif rule in ("lowest", "highest"):
            alike = torch.stack([_cosines(mean.to(self.mean), self.mean), _cosines(std.to(self.std), self.std)])
            scores = alike if rule == "highest" else -alike
        else:
            raise ValueError(f'Unknown rule {rule!r}; there are "lowest", "highest" and "random".')
        if self.joint:
            scores = scores.mean(0, keepdim=True).expand_as(scores)
        return scores.masked_fill(~self._known(), -torch.inf).argmax(2).T

    def enhance(
        self, features: Float[Tensor, "B C h w"], index: Int[Tensor, "B 2"], alpha: float | Float[Tensor, "B"]
    ) -> Float[Tensor, "B C h w"]:
        """Give features part of a selected style: f_enh = (f - mean) / std * std_mix + mean_mix.

        RtD's memory-based feature enhancement, Figure 3 (b): mean_mix = alpha mean + (1 - alpha) m_j, std_mix likewise.
        `alpha`, one number or one per sample, is the share of the own style: 1 is the identity, exactly, 0 takes over
        the item. A free item counts as the own style, a constant map takes the mixed mean. Gradients reach the
        features, through their own statistics too. Computed in float32 at least, returned in the features' dtype.
        """
        mean, std = feature_statistics(features)
        known = index < self.filled
        item_mean = torch.where(known[:, :1], self.mean.detach()[index[:, 0]], mean)
        item_std = torch.where(known[:, 1:], self.std.detach()[index[:, 1]], std)
        return restyle(features, item_mean, item_std, alpha)

    def orthogonality(self) -> Float[Tensor, ""]:
        """`orthogonality_loss` of the items, printed form with the printed update; 0 while there are free items."""
        printed, full = self.update == "batch", self.filled == len(self.mean)
        return full * orthogonality_loss(self.mean, self.std, centred=not printed, diagonal=printed)

    def _known(self) -> Bool[Tensor, "J"]:
        return torch.arange(len(self.mean), device=self.mean.device) < self.filled

    def _fill(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Free items take the samples as they come, but no style twice; the samples that are left over."""
        if self.filled == len(self.mean):
            return mean, std
        left = []
        for b in range(len(mean)):
            free = int(self.filled)
            twice = ((self.mean[:free] == mean[b]) & (self.std[:free] == std[b])).all(1).any()
            if twice or free == len(self.mean):
                left.append(b)
            else:
                self.mean[free], self.std[free], self.idle[free] = mean[b], std[b], 0
                self.filled += 1
        return mean[left], std[left]

    def _assign(self, mean: Tensor, std: Tensor) -> None:
        samples, items = (torch.cat(pair, 1) - self.centre for pair in ((mean, std), (self.mean, self.std)))
        alike = _cosines(samples, items).masked_fill(~self._known(), -torch.inf)
        share = (alike / self.temperature).softmax(1)
        weight = share.sum(0)[:, None]
        rate = torch.where(weight < 1e-3, 0, (1 - self.ema) * weight.clamp(max=1))
        for bank, values in ((self.mean, mean), (self.std, std)):
            # A product and a sum, since autocast would run a matrix product in bfloat16.
            total = (share[:, :, None] * values[:, None]).sum(0)
            bank.lerp_(total / weight.clamp(min=1e-3), rate)

        self.idle += 1
        self.idle[alike.argmax(1)] = 0
        idle = self.idle.masked_fill(~self._known(), 0)
        oldest, rarest = idle.argmax(), alike.amax(1).argmin()
        if idle[oldest] >= self.reseed_after:
            self.mean[oldest], self.std[oldest], self.idle[oldest] = mean[rarest], std[rarest], 0

    def _mix_batch(self, mean: Tensor, std: Tensor) -> None:
        for bank, values in ((self.mean, mean), (self.std, std)):
            alike = _cosines(bank, values).clamp(min=0)
            share = alike / (alike.sum(1, keepdim=True) + 1e-6)
            bank.lerp_((share[:, :, None] * values).sum(1), (1 - self.ema) * self._known()[:, None].to(bank))


def _cosines(these: Float[Tensor, "A C"], those: Float[Tensor, "B C"]) -> Float[Tensor, "A B"]:
    """All cosines between two sets of vectors, 0 for a zero vector. Not a matrix product, for the reason above."""
    return (F.normalize(these, dim=1, eps=1e-8)[:, None] * F.normalize(those, dim=1, eps=1e-8)).sum(2)
