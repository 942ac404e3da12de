"""Remember the Difference: a memory of source styles re-styles features, in training away from home, in test back.

Derived in notebooks 30 to 50. Wang, Duan, Wang, En, Fan, Zhang, "Remember the Difference: Cross-Domain Few-Shot
Semantic Segmentation via Meta-Memory Transfer", CVPR 2022. No code was released, so here is, point by point, what is
printed and what stands here.

 1. The deviations' update is weighed by the deviations' own similarities (one write-up prints the means').
 2. The "variance" under a root is the standard deviation: biased, 1e-5 inside the root.
 3. f^form is the normalised feature.
 4. Statistics are per image and channel, never over the batch.
 5. sim is the cosine.
 6. Denominators of the update that can vanish get 1e-6.
 7. The update normalises over the batch, and every item becomes the same vector. Here over the items;
    `update="batch"` is the printed form.
 8. h in the orthogonality is the absolute cosine, of two different items.
 9. The orthogonality needs a gradient: items are parameters; `store` writes them after the optimiser's step.
10. Means and deviations are nowhere negative, so the orthogonality is taken about their mean.
11. "Lowest" and "highest" similarity is that of mean and deviation together, one item a sample (`joint`).
12. alpha is drawn uniformly per sample in training and fixed in test (`alpha`).
13. The moving average keeps 0.99; the memory has 32 items.
14. The memory sits behind the backbone's first stage (`memory_after`).
15. The prototype loss has its background term: a softmax over {background, foreground} at PANet's scale of 20.
16. The contrastive loss is symmetric, a mean over its terms.
17. It has a temperature; printed is 1.
18. net(i) is neg(i).
19. Prototypes of one class are no negatives of each other.
20. p_t is of the source: no image of the target is ever seen in training.
21. lambda stands for two things: here `ema`, and one weight for each loss.
22. The query passes the memory in test, as the support does, and not in training.
23. Gradients run through a sample's own statistics when it is re-styled, not when it is stored.
24. PASCAL-S is PASCAL-5.

Open as well, and switches here: what the positive of the contrastive loss is where the memory is off (`positive`), and
how the re-styled support reaches the segmentation where the contrastive loss is off: the prototype loss is the mean of
that with the plain and that with the re-styled support, whenever the memory works on the source.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fsslib.blocks.backbones import Backbone
from fsslib.blocks.contrast import prototype_contrastive_loss, prototype_segmentation_loss
from fsslib.blocks.memory import MetaMemory, feature_statistics, restyle
from fsslib.blocks.pooling import masked_average_pooling
from fsslib.episodes import VOID, Episode
from fsslib.methods.prototype import PrototypeNetwork

_SOURCES = ("none", "lowest", "random", "mix")
_TARGETS = ("none", "highest", "random")
_POSITIVES = ("twin", "query")


class RememberTheDifference(PrototypeNetwork):
    """The prototype network with three parts that can be switched on alone; the ablation's rows are

        BS               contrast=False  source="none"    target="none"
        Cons             contrast=True   source="none"    target="none"
        Cons+MEnS        contrast=True   source="lowest"  target="none"
        MEnS+MEnT        contrast=False  source="lowest"  target="highest"
        all              contrast=True   source="lowest"  target="highest"

    - `contrast`: the contrastive loss between prototypes, with weight `contrast_weight`. `positive="twin"` pairs a
      support with a copy in other colours, which the memory then re-styles as well; `positive="query"` with the query,
      the same class in another image. A way that is absent from its query has no pair and is left out.
    - `source`: in training, re-style the support by the item "lowest" in similarity. Controls: a "random" item; "mix",
      another image of the batch in place of the memory (MixStyle).
    - `target`: in test, re-style support and query by the item "highest" in similarity, `alpha` of the own style kept.
      Control: a "random" item, drawn anew with every call. The memory is not written in test.

    Where the memory is used it is written after every step, and its orthogonality is a loss with weight
    `orthogonality_weight`. While it is empty it changes nothing. Parameters of the memory are an optimiser's of its
    own, "memory"; the rest is the "segmenter".
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        contrast: bool = True,
        source: str = "lowest",
        target: str = "highest",
        positive: str = "twin",
        memory_after: str | None = None,
        items: int = 32,
        ema: float = 0.99,
        temperature: float = 0.05,
        update: Literal["assign", "batch"] = "assign",
        joint: bool = True,
        alpha: float = 0.5,
        contrast_temperature: float = 0.1,
        contrast_weight: float = 1.0,
        orthogonality_weight: float = 1.0,
        scale: float = 20.0,
        resize: str = "mask",
    ):
        super().__init__(backbone, scale=scale, resize=resize)
        for name, value, known in (
            ("source", source, _SOURCES),
            ("target", target, _TARGETS),
            ("positive", positive, _POSITIVES),
        ):
            if value not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}; found {value!r}.")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is the share of the own style, 0 to 1; found {alpha}.")
        self.contrast, self.source, self.target, self.positive = contrast, source, target, positive
        self.encodes_alike = target != "random"
        self.alpha, self.contrast_temperature = alpha, contrast_temperature
        self.contrast_weight, self.orthogonality_weight = contrast_weight, orthogonality_weight
        self.memory_after = memory_after or backbone.first_stage
        channels = backbone.channels_behind(self.memory_after)
        self.memory = MetaMemory(channels, items, ema, update=update, joint=joint, temperature=temperature)
        self._styles: tuple[Tensor, Tensor] | None = None

    @property
    def remembers(self) -> bool:
        """Whether any part that is on uses the memory."""
        return self.source in ("lowest", "random") or self.target != "none"

    def parameter_groups(self) -> dict[str, list[dict[str, Any]]]:
        memory = self.memory.parameter_group()
        items = {id(p) for p in memory["params"]}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in items]
        return {"segmenter": [{"name": "all", "params": rest}], "memory": [memory]}

    def features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The last stage's features; in test, by way of the memory's most similar style."""
        return self._run(images, None if self.training or self.target == "none" else self._towards_home)

    def losses(self, batch: Episode) -> dict[str, Tensor]:
        """Prototype loss, contrastive loss, orthogonality: those that are switched on, already weighted."""
        lead = batch.support_masks.shape[:3]
        images, masks = batch.support_images.flatten(0, 2), batch.support_masks.flatten(0, 2)
        together = self._run(torch.cat([images, batch.query_images]), self._watch if self.remembers else None)
        query, plain = together[len(images) :], self._prototypes(together[: len(images)], masks, lead)

        # 1. The twin: the support once more, in other colours, in a foreign style, or both.
        twin = None
        recoloured = self.contrast and self.positive == "twin"
        if recoloured or self.source != "none":
            shown = photometric_twin(images) if recoloured else images
            twin = self._prototypes(self._run(shown, self._abroad), masks, lead)

        # 2. Find the query's object, with the plain prototypes and with the foreign ones.
        segmentation = self._segmentation(query, plain, batch)
        if self.source != "none":
            segmentation = 0.5 * (segmentation + self._segmentation(query, twin, batch))
        losses = {"segmentation": segmentation}

        # 3. Know each prototype's partner among all others.
        if self.contrast:
            partner = twin["foreground"] if recoloured else self._query_prototypes(query, batch)
            there = torch.ones_like(batch.presence) if recoloured else batch.presence
            losses["contrast"] = self.contrast_weight * prototype_contrastive_loss(
                plain["foreground"][there],
                partner[there],
                batch.class_ids[there],
                temperature=self.contrast_temperature,
            )
        # 4. Keep the memory's items apart.
        if self.remembers:
            losses["orthogonality"] = self.orthogonality_weight * self.memory.orthogonality()
        return losses

    def after_step(self) -> None:
        """Store the styles of the step's plain images."""
        if self._styles is not None:
            self.memory.store(*self._styles)
            self._styles = None

    def _run(self, images: Tensor, restyling: Callable[[Tensor], Tensor] | None) -> Float[Tensor, "B C h w"]:
        return self.backbone(images, None if restyling is None else {self.memory_after: restyling})[-1]

    def _watch(self, features: Tensor) -> Tensor:
        """Change nothing, and note the styles that `after_step` stores."""
        self._styles = feature_statistics(features.detach())
        return features

    def _abroad(self, features: Tensor) -> Tensor:
        """Training: towards the least similar style, each sample by a share of its own."""
        if self.source == "none":
            return features
        alpha = torch.rand(len(features), device=features.device)
        mean, std = (statistic.detach() for statistic in feature_statistics(features))
        if self.source == "mix":
            other = torch.randperm(len(features), device=features.device)
            return restyle(features, mean[other], std[other], alpha)
        return self.memory.enhance(features, self.memory.select(mean, std, self.source), alpha)

    def _towards_home(self, features: Tensor) -> Tensor:
        """Test: towards the most similar style."""
        return self.memory.enhance(features, self.memory.select(*feature_statistics(features), self.target), self.alpha)

    def _prototypes(self, features: Tensor, masks: Tensor, lead: torch.Size) -> dict[str, Tensor]:
        """Foreground and background of each way, the mean of its shots: [B, N, C] each."""
        return {name: values.unflatten(0, lead).mean(2) for name, values in self._pool(features, masks).items()}

    def _query_prototypes(self, query: Tensor, batch: Episode) -> Float[Tensor, "B N C"]:
        masks = _binary_labels(batch)
        ways = query.repeat_interleave(batch.ways, 0)
        return masked_average_pooling(ways, masks.flatten(0, 1), resize=self.resize).unflatten(0, masks.shape[:2])

    def _segmentation(self, query: Tensor, prototypes: dict[str, Tensor], batch: Episode) -> Float[Tensor, ""]:
        """Each way against the rest."""
        return prototype_segmentation_loss(
            query.repeat_interleave(batch.ways, 0),
            prototypes["foreground"].flatten(0, 1),
            prototypes["background"].flatten(0, 1),
            _binary_labels(batch).flatten(0, 1),
            scale=self.scale,
        )


def _binary_labels(batch: Episode) -> Int[Tensor, "B N H W"]:
    """The query's labels once for each way: 1 the way, 0 the rest, void stays."""
    labels = batch.query_labels[:, None]
    way = torch.arange(1, batch.ways + 1, device=labels.device)[:, None, None]
    return torch.where(labels == VOID, VOID, (labels == way).long())


def photometric_twin(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """The same images in other light: each gets its own brightness, contrast and gain of each colour.

    Nothing moves, so masks stay right. Gains are uniform in [0.6, 1.4]; values stay in [0, 1].
    """
    gain, contrast, brightness = (
        0.6 + 0.8 * torch.rand(len(images), channels, 1, 1, device=images.device) for channels in (3, 1, 1)
    )
    middle = images.mean((1, 2, 3), keepdim=True)
    return (((images - middle) * contrast + middle * brightness) * gain).clamp(0, 1)
