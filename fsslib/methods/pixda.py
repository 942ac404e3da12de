"""PixDA: align domains where it matters, pixel by pixel: where the label says the segmenter is wrong and classes are
rare.

Derived in notebooks 60 and 70. Tavera, Cermelli, Masone, Caputo, "Pixel-by-Pixel Cross-Domain Alignment for Few-Shot
Semantic Segmentation", WACV 2022; code github.com/taveraantonio/PixDA (MIT). Its "K-shot" means K labelled target
images per city, of the very classes of the source; it is no N-way K-shot.

What differs from the released code, whose behaviour stays within reach where it is a switch:

 - difficulty and balance are weights and get no gradient (`detach_maps`); void pixels count nowhere (`count_ignored`,
   `reduce`); the focal loss weighs no class (the release: 0.25 for buildings and 0.75 for all others, on a GPU only);
   images are padded to fit the grid (blocks/deeplab.py). `as_released=True` has all of it the release's way;
 - the teacher of the distillation is in evaluation mode; its stage runs (the release reads an option it does not have);
 - the selection scores all kept images, not only full batches, and ends cleanly when less than a batch is left;
 - a batch is drawn from the kept images by the step's number, where the release goes through a shuffled list;
 - one segmentation head, for the second one of the release enters no loss;
 - the window of the stylisation is given in bins, for the paper's 1 % is void in small images.
"""

import copy
import functools
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fsslib.blocks.adversarial import (
    ImageDiscriminator,
    PixelDiscriminator,
    distillation_loss,
    domain_loss,
    focal_loss,
    pixadv_loss,
    select_sources,
)
from fsslib.blocks.backbones import Backbone
from fsslib.blocks.deeplab import DeepLab, make_caffe_layout
from fsslib.blocks.stylise import fourier_stylise
from fsslib.episodes import VOID, LabelledImages
from fsslib.methods.base import Method, Optimizers, Prediction, check_finite

Pair = tuple[LabelledImages, LabelledImages]

_ADVERSARIES = ("none", "patch", "pixel")


class PixDA(Method):
    """A DeepLab segmenter and two discriminators. The ladder's rungs are settings of one class:

        joint                     adversary="none"  stylise=False select=False
        joint + stylisation       adversary="none"  select=False
        patch adversarial         adversary="patch" select=False
        pixel A                   difficulty=False  balance=False select=False
        A*B, A*S, A*S*B           difficulty and balance on one by one, select=False
        A*S*B + selection         the defaults; fine-tuning is a matter of the recipe
        + distillation            a recipe with a fine-tuning phase, distillation=True

    A batch of both domains takes the three-phase step. A batch of one domain, in the phases that train on the source
    alone or the target alone, takes a supervised step; with `distillation` the segmenter as it was before the first of
    them is its teacher.

    - `adversary`: who judges the target's predictions: "pixel" each pixel, "patch" the image discriminator (the way of
      AdaptSegNet, which then sends gradients to the segmenter, too), or nobody.
    - `difficulty`, `balance`: whether S and B weigh the pixels. `normalise_map` divides their product by its mean;
      `detach_maps`, `count_ignored` and `reduce` are those of `pixadv_loss`.
    - `as_released`: PixAdv and the focal loss as the release computes them, on images that are not padded. It overrides
      `detach_maps`, `count_ignored` and `reduce`.
    - `stylise`: give each source image the low-frequency amplitude, `half_width` bins, of a target image.
    - `select`: after each pass over the source keep the images whose score by the image discriminator is above
      `threshold`, which grows by its first value every pass. When less than a batch would be left, the whole source is
      used again and the adversary rests: the remaining steps are joint steps.
    - `caffe_layout`: the paper's trunk, DeepLab-V2's ResNet-101 in place of torchvision's (`blocks.deeplab`); it goes
      with backbone="resnet101" and dilations="6,12,18,24".
    - `head_rate`: how much faster the head learns than the backbone; the paper takes 10 for weights from ImageNet.

    `num_classes` and `source_images` are given by the data (`AdaptationTask.method_options`). Discriminators look at
    the softmax of the logits at the images' size; source is domain 0, target 1.
    """

    adapts = True

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int = 11,
        source_images: int = 1,
        dilations: str = "1,2,4,8",
        caffe_layout: bool = False,
        adversary: str = "pixel",
        difficulty: bool = True,
        balance: bool = True,
        normalise_map: bool = False,
        detach_maps: bool = True,
        count_ignored: bool = False,
        reduce: str = "valid",
        as_released: bool = False,
        adversarial_weight: float = 0.1,
        stylise: bool = True,
        half_width: int = 3,
        select: bool = True,
        threshold: float = 0.4,
        distillation: bool = False,
        distillation_weight: float = 0.5,
        discriminator_width: int = 64,
        head_rate: float = 1.0,
    ):
        super().__init__()
        if adversary not in _ADVERSARIES:
            raise ValueError(f"adversary is one of {', '.join(_ADVERSARIES)}; found {adversary!r}.")
        reaches = tuple(int(d) for d in dilations.split(","))
        backbone = make_caffe_layout(backbone) if caffe_layout else backbone
        self.segmenter = DeepLab(backbone, num_classes, dilations=reaches, as_released=as_released)
        self.pixel_discriminator = PixelDiscriminator(num_classes, discriminator_width)
        self.image_discriminator = ImageDiscriminator(num_classes, discriminator_width)
        self.teacher = copy.deepcopy(self.segmenter).requires_grad_(False) if distillation else None
        self.adversary, self.adversarial_weight = adversary, adversarial_weight
        self.head_rate = head_rate
        self.maps = {
            "use_difficulty": difficulty,
            "use_balance": balance,
            "normalise_map": normalise_map,
            "detach_maps": detach_maps,
            "count_ignored": count_ignored,
            "reduce": reduce,
        }
        if as_released:
            self.maps |= {"detach_maps": False, "count_ignored": True, "reduce": "all"}
        self.focal_loss = functools.partial(focal_loss, as_released=as_released)
        self.half_width = half_width if stylise else None
        self.select, self.threshold = select, threshold
        self.distillation_weight = distillation_weight
        self.register_buffer("kept", torch.ones(source_images, dtype=torch.bool))
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self.register_buffer("left_of_pass", torch.zeros((), dtype=torch.int64))
        self.register_buffer("selecting", torch.tensor(select))
        self.register_buffer("has_teacher", torch.tensor(False))

    @property
    def backbone(self) -> Backbone:
        return self.segmenter.backbone

    def parameter_groups(self) -> dict[str, list[dict[str, Any]]]:
        """The segmenter's, with its head `head_rate` times as fast, and one optimiser for each discriminator."""
        trained = [p for p in self.backbone.parameters() if p.requires_grad]
        head = [p for p in self.segmenter.head.parameters() if p.requires_grad]
        return {
            "segmenter": [
                {"name": "backbone", "params": trained},
                {"name": "head", "params": head, "lr_scale": self.head_rate},
            ],
            "pixel_discriminator": [{"name": "all", "params": list(self.pixel_discriminator.parameters())}],
            "image_discriminator": [{"name": "all", "params": list(self.image_discriminator.parameters())}],
        }

    def train(self, mode: bool = True) -> "PixDA":
        """As always, but that the teacher stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, batch: LabelledImages) -> Float[Tensor, "B classes H W"]:
        """Logits over the classes, at the images' size."""
        return self.segmenter(batch.images)

    def predict(self, episode: LabelledImages) -> Prediction:
        """The most likely class of each pixel; labels are class numbers 0 to C-1, none of them background."""
        with torch.no_grad(), self.autocast(episode.images.device):
            scores = self(episode).float()
        labels = scores.max(1).indices
        classes = torch.arange(scores.shape[1], device=labels.device)
        return Prediction(labels, (labels.flatten(1)[:, None] == classes[:, None]).any(-1), scores)

    def losses(self, batch: LabelledImages) -> dict[str, Tensor]:
        """The focal loss of images of one domain and, once there is a teacher, the distance to its answers."""
        logits = self(batch).float()
        losses = {"segmentation": self.focal_loss(logits, batch.labels)}
        if self.has_teacher:
            with torch.no_grad():
                answers = self.teacher(batch.images).float()
            losses["distillation"] = self.distillation_weight * distillation_loss(logits, answers)
        return losses

    def training_step(self, batch: LabelledImages | Pair, optimizers: Optimizers) -> dict[str, float]:
        if isinstance(batch, tuple):
            return self._adversarial_step(*batch, optimizers)
        if self.teacher is not None and not self.has_teacher:
            self.teacher.load_state_dict(self.segmenter.state_dict())
            self.has_teacher.fill_(True)
        return super().training_step(batch, {"segmenter": optimizers["segmenter"]})

    def _adversarial_step(
        self, source: LabelledImages, target: LabelledImages, optimizers: Optimizers
    ) -> dict[str, float]:
        device = target.images.device
        resting = self.select and not self.selecting
        fooling = self.adversary != "none" and not resting
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)

        # 1. Source, in the target's colours: learn from its labels.
        source = self._stylised(source, target)
        with self.autocast(device):
            source_logits = self(source).float()
        losses = {"source": self.focal_loss(source_logits, source.labels)}
        check_finite(losses).backward()

        # 2. Target: learn from its labels, and look like the source to a discriminator that holds still.
        self._discriminators_learn(False)
        with self.autocast(device):
            target_logits = self(target).float()
        on_target = {"target": self.focal_loss(target_logits, target.labels)}
        if fooling:
            on_target["adversarial"] = self.adversarial_weight * self._fool(target_logits, target.labels)
        check_finite(on_target).backward()
        losses |= on_target

        # 3. Discriminators: tell the two domains apart, on predictions that are given.
        self._discriminators_learn(True)
        judges_images = self.select or self.adversary == "patch"
        judges = {"pixel_discriminator": self.adversary == "pixel", "image_discriminator": judges_images}
        for name in (name for name, asked in judges.items() if asked):
            judge = getattr(self, name)
            shown = [judge(logits.detach().softmax(1)) for logits in (source_logits, target_logits)]
            losses[name] = 0.5 * domain_loss(shown[0], "source") + 0.5 * domain_loss(shown[1], "target")
            check_finite({name: losses[name]}).backward()

        for optimizer in optimizers.values():
            optimizer.step()
        return {name: value.item() for name, value in losses.items()}

    def _fool(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What the target pays for being recognised. Without a label (K = 0) every pixel pays alike."""
        judge, labelled = self._judge, bool((labels != VOID).any())
        if not labelled and (self.maps["use_difficulty"] or self.maps["use_balance"]) and self.adversary == "pixel":
            raise ValueError(
                "The maps S and B weigh pixels by their labels, and this batch of the target has none (K = 0). Switch "
                "difficulty and balance off."
            )
        if self.adversary == "patch" or not labelled:
            return domain_loss(judge(logits.softmax(1)), "source")
        return pixadv_loss(logits, judge(logits.softmax(1)), labels, **self.maps)

    @property
    def _judge(self) -> nn.Module:
        return self.image_discriminator if self.adversary == "patch" else self.pixel_discriminator

    @torch.no_grad()
    def measures(self, exams: Mapping[str, Any]) -> dict[str, float]:
        """How well the adversary tells the first exam's predictions from the second's: the area under its ROC curve.

        Over pixels, every seventh of them, or patches of the test images, which it never saw; 0.5 is chance. Images of
        the source are taken as they are: a discriminator that learnt on stylised ones may find them strange.
        """
        if self.adversary == "none":
            return {}
        device, said = self.kept.device, []
        for exam in exams.values():
            shown = (self._judge(self(batch.to(device)).softmax(1)) for batch in exam.batches(8))
            said.append(torch.cat([-logits.flatten()[:: 7 if self.adversary == "pixel" else 1] for logits in shown]))
        source, target = map(len, said)
        ranks = torch.cat(said).double().argsort().argsort()[:source].double() + 1
        return {"discriminator_auc": ((ranks.sum() - source * (source + 1) / 2) / (source * target)).item()}

    def _discriminators_learn(self, learn: bool) -> None:
        for judge in (self.pixel_discriminator, self.image_discriminator):
            judge.requires_grad_(learn)

    def _stylised(self, source: LabelledImages, target: LabelledImages) -> LabelledImages:
        """Each source image in the colours of the target image at its place in the batch."""
        if self.half_width is None:
            return source
        partner = torch.arange(len(source), device=source.images.device) % len(target)
        images = fourier_stylise(source.images, target.images[partner], self.half_width)
        return LabelledImages(images, source.labels, source.domain)

    def draw_batch(self, stream: Any, step: int) -> Any:
        """The stream's; with `select` it selects, and `selection` tells it which source images stay."""
        return stream.selected(step, self) if self.select else stream.batch(step)

    def selection(self, stream: Any, positions: list[int], step: int) -> Bool[Tensor, "images"]:
        """Which of these source images stay, for the image discriminator does not know them for source too surely."""
        return select_sources(self.selection_scores(stream, positions, step), self.threshold * int(self.passes))

    @torch.no_grad()
    def selection_scores(self, stream: Any, positions: list[int], step: int = 0) -> Float[Tensor, "images"]:
        """How far from "source" the image discriminator finds each of these source images; in evaluation mode.

        The mean over patches of its loss against the label "source": 0.693 is indifference, more is "target".
        """
        was_training, device, scores = self.training, self.kept.device, []
        self.eval()
        for source, target in stream.side_by_side(positions, step):
            source = self._stylised(source.to(device), target.to(device))
            with self.autocast(device):
                shown = self(source).float().softmax(1)
            scores.append(nn.functional.softplus(self.image_discriminator(shown)).flatten(1).mean(1))
        self.train(was_training)
        return torch.cat(scores)
