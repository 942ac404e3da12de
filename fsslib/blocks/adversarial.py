"""Pixel-wise adversarial alignment: two discriminators, what the segmenter pays for being recognised, and the losses
and the selection that go with them.

Derived in notebooks 60 and 70. Tavera, Cermelli, Masone, Caputo, "Pixel-by-Pixel Cross-Domain Alignment for Few-Shot
Semantic Segmentation" (PixDA), WACV 2022; code github.com/taveraantonio/PixDA, the "release" below.

Source is domain 0 and target domain 1: a discriminator's logit is that of "target", high for what looks like target. A
discriminator looks at the softmax of the segmenter's logits at the size of the labels; the caller upsamples and takes
the softmax. Label maps hold 0 to C-1, and 255 for void. Losses and maps are computed in float32 at least, under
autocast too, and where every pixel is void a loss is 0 with a gradient of zeros.
"""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fsslib.episodes import VOID


class PixelDiscriminator(nn.Sequential):
    """The domain of each pixel: 3x3, 3x3 and 1x1 convolutions of stride 1, so that a logit sees 5x5 pixels.

    Probabilities [B, num_classes, H, W] to logits of "target" [B, 1, H, W], at any size. LeakyReLU 0.2 between, no
    normalisation, PyTorch's own initialisation, as in the release: 84,993 parameters for 19 classes.
    """

    def __init__(self, num_classes: int, width: int = 64):
        super().__init__(
            nn.Conv2d(num_classes, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1),
        )

    def forward(self, probabilities: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
        return super().forward(probabilities)


class ImageDiscriminator(nn.Sequential):
    """The domain of an image, patch by patch: five 4x4 convolutions of stride 2, the discriminator of AdaptSegNet.

    Probabilities [B, num_classes, H, W] to logits of "target" [B, 1, H // 32, W // 32]. LeakyReLU 0.2 between, no
    normalisation, PyTorch's own initialisation: 2,781,121 parameters for 19 classes. Raises ValueError for sides below
    32 pixels, which leave no patch.
    """

    def __init__(self, num_classes: int, width: int = 64):
        widths = (num_classes, width, 2 * width, 4 * width, 8 * width)
        layers = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 4, stride=2, padding=1))

    def forward(self, probabilities: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 h w"]:
        height, width = probabilities.shape[-2:]
        if min(height, width) < 32:
            raise ValueError(
                f"The image discriminator halves a side five times and needs 32 pixels; found {height}x{width}. "
                "Give it probabilities at the size of the image, not of the feature grid."
            )
        return super().forward(probabilities)


def domain_loss(
    discriminator_logits: Float[Tensor, "B 1 h w"], domain: Literal["source", "target"]
) -> Float[Tensor, ""]:
    """What it costs a discriminator to be told that this is the source, or the target: mean binary cross-entropy.

    -log P(source) = softplus(d) or -log P(target) = softplus(-d), over all pixels or patches, labelled or not. The
    release trains both discriminators on half the sum of the two, unweighted. Of a target prediction the "source" loss
    is what a segmenter pays to fool the discriminator; of one image it is the score that `select_sources` reads.
    """
    if domain not in ("source", "target"):
        raise ValueError(f'domain is "source" or "target"; found {domain!r}.')
    logits = _wide(discriminator_logits)
    return F.softplus(logits if domain == "source" else -logits).mean()


def pixel_difficulty_map(logits: Float[Tensor, "B C H W"], labels: Int[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
    """S, how wrong the segmenter is at each pixel: S_i = -log softmax(logits)_i[y_i], 0 where the label is void.

    From 0, without an upper bound; the paper's figure of it is drawn from 0 to 1. It has a gradient: `pixadv_loss`
    takes that away, the release does not. Raises ValueError for labels that the logits have no class for.
    """
    _check_labels(labels, logits.shape[1], logits.shape[-2:])
    return F.cross_entropy(_wide(logits), labels, ignore_index=VOID, reduction="none")


def class_balance_map(
    labels: Int[Tensor, "B H W"], num_classes: int, *, count_ignored: bool = False
) -> Float[Tensor, "B H W"]:
    """B, how rare the class of each pixel is in its own image: B_i = 1 - n_{y_i} / N, 0 where the label is void.

    n_c counts the pixels of class c and N all that are not void; with `count_ignored` N = H W, as in the release. Near
    1 for a rare class; 0 throughout for an image of one class. Raises ValueError for labels outside the classes.
    """
    _check_labels(labels, num_classes)
    batch = len(labels)
    valid = labels != VOID
    classes = torch.where(valid, labels, num_classes)  # void is one more class, counted and then left out
    image = torch.arange(batch, device=labels.device)[:, None, None]
    counts = torch.bincount((image * (num_classes + 1) + classes).flatten(), minlength=batch * (num_classes + 1))
    of_its_class = counts.view(batch, num_classes + 1).gather(1, classes.flatten(1)).view_as(labels)
    total = labels.shape[1] * labels.shape[2] if count_ignored else valid.sum((1, 2), keepdim=True).clamp(min=1)
    return torch.where(valid, 1 - of_its_class / total, 0)


def pixadv_loss(
    logits: Float[Tensor, "B C H W"],
    discriminator_logits: Float[Tensor, "B 1 H W"],
    labels: Int[Tensor, "B H W"],
    *,
    detach_maps: bool = True,
    use_difficulty: bool = True,
    use_balance: bool = True,
    count_ignored: bool = False,
    normalise_map: bool = False,
    reduce: Literal["valid", "all"] = "valid",
) -> Float[Tensor, ""]:
    """L_PixAdv: fool the pixel discriminator, most where the segmenter is wrong and the class is rare.

        L = mean_i A_i S_i B_i,     A_i = softplus(d_i) = -log P(source | i)

    of a target prediction, with S from `pixel_difficulty_map` and B from `class_balance_map`, which `use_difficulty`
    and `use_balance` leave out. `logits` give S and should give `discriminator_logits`, d = D(softmax(logits)), too:
    that is the way the gradient takes. It reaches D's parameters unless they have requires_grad off.

    S and B are weights: the paper keeps both out of back-propagation. The release forgets to detach S, so that its
    gradient is mixed with that of a cross-entropy that D weighs: `detach_maps=False`. It also counts void pixels in B
    and in the mean, where they add 0: `count_ignored=True, reduce="all"`.

    `normalise_map` divides the weights by their mean over the valid pixels of the batch, without a gradient, so that
    variants differ in where they push and not in how hard. A batch that is almost learned is then pushed as hard as any
    other. Weights that are 0 throughout (one class in every image) stay 0.
    """
    if discriminator_logits.shape[-2:] != labels.shape[-2:]:
        raise ValueError(
            f"pixadv_loss needs one discriminator logit per pixel of the labels {tuple(labels.shape)}; found "
            f"{tuple(discriminator_logits.shape)}. Upsample the logits before their softmax and D; an image "
            'discriminator is fooled with domain_loss(..., "source").'
        )
    if reduce not in ("valid", "all"):
        raise ValueError(f'reduce is "valid" or "all"; found {reduce!r}.')
    fooling = F.softplus(_wide(discriminator_logits)).squeeze(1)
    valid = labels != VOID
    weights = valid.to(fooling.dtype)
    if use_difficulty:
        weights = weights * pixel_difficulty_map(logits.detach() if detach_maps else logits, labels)
    if use_balance:
        weights = weights * class_balance_map(labels, logits.shape[1], count_ignored=count_ignored)
    pixels = valid.sum().clamp(min=1)
    if normalise_map:
        weights = weights / (weights.detach().sum() / pixels).clamp(min=torch.finfo(weights.dtype).tiny)
    return (fooling * weights).sum() / (pixels if reduce == "valid" else labels.numel())


def focal_loss(
    logits: Float[Tensor, "B C H W"], labels: Int[Tensor, "B H W"], *, gamma: float = 2.0, as_released: bool = False
) -> Float[Tensor, ""]:
    """Cross-entropy that loses interest in what is settled: the mean over valid pixels of (1 - p)^gamma (-log p).

    p is the probability of the labelled class; gamma = 0 is plain cross-entropy. Lin et al., "Focal Loss for Dense
    Object Detection", ICCV 2017, without its class weights alpha. The release has them by accident: 0.25 for class 2
    (building), 0.75 for all others, on a GPU only; and it adds 1e-6 to p, which ends the loss at 13.8 where p is 0.
    `as_released=True` does both, on every device. Raises ValueError for labels outside the classes and for gamma below
    0.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma is 0 (plain cross-entropy) or above; found {gamma}.")
    cost, valid = pixel_difficulty_map(logits, labels), labels != VOID
    weights = valid.to(cost.dtype)
    if as_released:
        cost = -(torch.exp(-cost) + 1e-6).log()
        weights = weights * torch.where(labels == 2, 0.25, 0.75)
    # 1 - p without cancellation, and kept from 0, where a power below 1 has no finite gradient.
    doubt = (-torch.expm1(-cost)).clamp(min=torch.finfo(cost.dtype).tiny)
    return (weights * doubt**gamma * cost).sum() / valid.sum().clamp(min=1)


def distillation_loss(
    student_logits: Float[Tensor, "B C H W"],
    teacher_logits: Float[Tensor, "B C H W"],
    *,
    teacher_temperature: float = 2.0,
    class_reduce: Literal["mean", "sum"] = "mean",
) -> Float[Tensor, ""]:
    """Keep a student near its teacher's softened answers: the mean over pixels of
    -mean_c softmax(z_teacher / temperature)_c log softmax(z_student)_c.

    Over all pixels, void ones too, for the teacher has an answer everywhere; it gets no gradient. As in the release:
    the temperature is on the teacher alone (Hinton et al. 2015 have it on both), so the student is drawn to half the
    teacher's logits, which are less sure; and the mean over the classes makes the loss C times weaker than the
    cross-entropy, which is `class_reduce="sum"`. Its least value is the entropy of the target, not 0.
    """
    if not teacher_temperature > 0:
        raise ValueError(f"teacher_temperature is above 0; found {teacher_temperature}. Above 1 it softens.")
    if class_reduce not in ("mean", "sum"):
        raise ValueError(f'class_reduce is "mean" or "sum"; found {class_reduce!r}.')
    target = (_wide(teacher_logits.detach()) / teacher_temperature).softmax(1)
    terms = -target * _wide(student_logits).log_softmax(1)
    return terms.sum(1).mean() if class_reduce == "sum" else terms.mean()


def gradient_reversal(x: Float[Tensor, "..."], strength: float) -> Float[Tensor, "..."]:
    """The identity, whose gradient is multiplied by -strength on the way back.

    Between features and a domain classifier it lets one backward pass train both: the classifier learns to tell the
    domains apart, at full strength, the features learn to prevent it. Ganin, Lempitsky, "Unsupervised Domain Adaptation
    by Backpropagation", ICML 2015, where strength grows from 0 to 1 as 2 / (1 + exp(-10 p)) - 1 with the share p of the
    training that is done. PLDA uses it; PixDA has flipped labels and a frozen discriminator instead.
    """
    return _GradientReversal.apply(x, strength)


class _GradientReversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.strength * gradient, None


def select_sources(scores: Float[Tensor, "images"], threshold: float) -> Bool[Tensor, "images"]:
    """Which source images stay: those whose score is above the threshold.

    The score is the `domain_loss(..., "source")` of the image discriminator for that image, the mean over its patches:
    0.693 is indifference, a high score says that it looks like the target. So images go that are surely source. In
    terms of probability: the geometric mean of P(source) over the patches is below exp(-threshold). In the release the
    threshold is 0.4 after the first pass over the source and grows by 0.4 with every pass; candidates are those that
    were kept before. The write-up's "keep where D_g < delta" agrees if its D_g is the probability of "source".

    All may go: what to do then is the caller's. Raises ValueError for scores that are not finite.
    """
    finite = scores.isfinite()
    if not finite.all():
        bad = f"{(~finite).sum()} of {len(scores)} scores are not finite"
        raise ValueError(f"{bad}: nothing was selected. Look for a loss that diverged.")
    return scores > threshold


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_labels(labels: Tensor, num_classes: int, size: tuple[int, ...] | None = None) -> None:
    if size is not None and tuple(size) != tuple(labels.shape[-2:]):
        raise ValueError(
            f"The logits are {size[0]}x{size[1]}, the labels {labels.shape[-2]}x{labels.shape[-1]}: "
            "upsample the logits to the size of the labels first."
        )
    strange = labels[(labels != VOID) & ((labels < 0) | (labels >= num_classes))]
    if len(strange):
        raise ValueError(
            f"Labels of {num_classes} classes are 0 to {num_classes - 1}, and {VOID} for void; found "
            f"{sorted(strange.unique().tolist())[:10]}. Map the data set's ids to class numbers first."
        )
