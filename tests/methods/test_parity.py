"""Parity with the authors' released code: numbers that it gave when it was run beside ours. 5 s.

Inputs and weights are made by a seed, by NumPy and tensor by tensor, so that neither torch's version nor the processor
has a say; the released networks were given the same ones. Compared are a few numbers of each tensor (`answer`,
`spread`), losses, and how many pixels each class got: nowhere are the two largest logits nearer to each other than a
hundred times the rounding. Deliberate differences are off: a method is as released, a mask without void where the
release counts that as background.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fsslib.blocks.adversarial import (
    ImageDiscriminator,
    PixelDiscriminator,
    distillation_loss,
    domain_loss,
    focal_loss,
    pixadv_loss,
)
from fsslib.blocks.stylise import fourier_stylise
from fsslib.episodes import VOID, Episode
from fsslib.methods import build_method


def filled(module: nn.Module) -> nn.Module:
    """The module in evaluation mode, with He's uniform draw for kernels and moderate numbers for everything else."""
    draw = np.random.default_rng(0)
    for name, tensor in sorted(module.state_dict().items()):
        if tensor.is_floating_point():
            values = 2 * draw.random(tuple(tensor.shape), dtype=np.float32) - 1
            if tensor.ndim > 1:
                values *= (6 / tensor[0].numel()) ** 0.5
            else:
                values = 0.1 * values if name.endswith(("bias", "mean")) else 0.6 + 0.3 * values
            tensor.copy_(torch.from_numpy(values))
    return module.eval()


def pictures(*shape: int, seed: int) -> Tensor:
    """Noise of two scales, in [0, 1]: patches of eight pixels, and pixels."""
    draw, (height, width) = np.random.default_rng(seed), shape[-2:]
    patches = draw.random((*shape[:-2], -(-height // 8), -(-width // 8)))
    noise = 0.7 * np.kron(patches, np.ones((8, 8)))[..., :height, :width] + 0.3 * draw.random(shape)
    return torch.from_numpy(noise.astype(np.float32))


def episode(height: int, width: int, *, batch=1, ways=1, shots=1, seed=0) -> Episode:
    """Pictures with a rectangle in each support, in another place for a second way, and one in the query."""
    masks = torch.zeros(batch, ways, shots, height, width, dtype=torch.int64)
    masks[..., height // 4 : 3 * height // 4, width // 5 : width // 2] = 1
    masks[:, 1:] = masks[:, 1:].flip(-1, -2)
    labels = torch.zeros(batch, height, width, dtype=torch.int64)
    labels[:, 20:40, 10:30] = 1
    supports = pictures(batch, ways, shots, 3, height, width, seed=seed)
    queries = pictures(batch, 3, height, width, seed=seed + 100)
    return Episode(supports, masks, queries, labels, torch.arange(1, ways + 1).expand(batch, ways))


def first_shot(asked: Episode) -> Episode:
    return replace(asked, support_images=asked.support_images[:, :, :1], support_masks=asked.support_masks[:, :, :1])


def street(seed: int) -> tuple[Tensor, Tensor]:
    """Logits of five classes in float64, and labels, a fifth of them void."""
    draw = np.random.default_rng(seed)
    logits, labels = 4 * draw.random((2, 5, 9, 11)) - 2, draw.integers(0, 5, (2, 9, 11))
    return torch.from_numpy(logits), torch.from_numpy(np.where(draw.random(labels.shape) < 0.2, VOID, labels))


def spread(x: Tensor) -> list[float]:
    """A tensor's standard deviation, and in units of it four of its numbers, evenly spread."""
    places = torch.linspace(0, x.numel() - 1, 6).long()[1:-1]
    return [x.std().item(), *(x.flatten()[places] / x.std()).tolist()]


def pixels(labels: Tensor, classes: int = 2) -> list[int]:
    """How many pixels each class got."""
    return labels.flatten().bincount(minlength=classes).tolist()


def answer(logits: Tensor) -> list[float]:
    return spread(logits) + pixels(logits.argmax(1), logits.shape[1])


def hsnet() -> list[float]:
    """Logits of one shot, and the vote of three."""
    method, asked = filled(build_method("hsnet", backbone="resnet50")), episode(72, 72, shots=3, seed=3)
    return answer(method(first_shot(asked))) + pixels(method.predict(asked).labels)


def pfenet() -> list[float]:
    """Logits of two shots, and both losses without dropout; with void, which the release sees as we do."""
    method = filled(build_method("pfenet", backbone="resnet50", legacy_backbone=True))
    asked = episode(57, 57, batch=2, shots=2, seed=4)
    asked.support_masks[..., 0, :] = asked.query_labels[:, -1] = VOID
    return answer(method(asked)) + [loss.item() for loss in method.losses(asked).values()]


def panet() -> list[float]:
    """Logits of two ways with two shots each, and the alignment loss."""
    method, asked = filled(build_method("panet", backbone="vgg16")), episode(56, 71, batch=2, ways=2, shots=2, seed=7)
    return [*answer(method(asked)), method.losses(asked)["alignment"].item()]


def sg_one() -> list[float]:
    """Logits of one shot, of the mean of five, and the union of five; corners aligned as torch did in 2017."""
    legacy = {"legacy_exit_pad": True, "legacy_align_corners": True}
    method, asked = filled(build_method("sg_one", backbone="vgg16", **legacy)), episode(56, 71, shots=5, seed=7)
    found = answer(method(first_shot(asked))) + answer(method(asked))
    method.shots = "union"
    return found + pixels(method.predict(asked).labels)


@torch.enable_grad()
def pixda_losses() -> list[float]:
    """PixAdv, the focal loss as on a GPU and the distillation with their gradients; B alone, with A and S constant."""
    judge = filled(PixelDiscriminator(5)).double()
    (logits, labels), (teacher, _) = street(0), street(1)
    released = {"detach_maps": False, "count_ignored": True, "reduce": "all"}
    found = []
    for loss in (
        lambda z: pixadv_loss(z, judge(z.softmax(1)), labels, **released),
        lambda z: focal_loss(z, labels, as_released=True),
        lambda z: distillation_loss(z, teacher),
    ):
        z = logits.clone().requires_grad_()
        loss(z).backward()
        found += [loss(z).item(), *spread(z.numel() * z.grad)]
    undecided = torch.zeros_like(logits)
    return [*found, pixadv_loss(undecided, undecided[:, :1], labels, **released).item()]


def pixda_discriminators() -> list[float]:
    """What both say of an image, and the image's score for the selection."""
    chances = pictures(2, 5, 64, 96, seed=3).softmax(1)
    pixel, image = (filled(kind(5))(chances) for kind in (PixelDiscriminator, ImageDiscriminator))
    return [*spread(pixel), *spread(image), domain_loss(image, "source").item()]


def pixda_stylisation() -> list[float]:
    """A window of two bins to each side."""
    return spread(fourier_stylise(pictures(1, 3, 40, 56, seed=1), pictures(1, 3, 40, 56, seed=2), 2))


def pixda_segmenter() -> list[float]:
    """Two widths, of which a padded network would see the first as the second."""
    how = {"num_classes": 3, "dilations": "6,12,18,24", "caffe_layout": True, "as_released": True}
    segmenter = filled(build_method("pixda", backbone="resnet101", backbone_stages="layer4", **how).segmenter)
    return [x for width in (64, 65) for x in answer(segmenter(pictures(1, 3, 48, width, seed=6)))]


CASES = [
    (hsnet, "juhongm999/hsnet at 6b1bc12", "0.554022 -0.878277 -0.444817 -2.93511 -1.75396 5048 136 5047 137"),
    (
        pfenet,
        "dvlab-research/PFENet at a505675",
        "7.0178 -0.676284 1.04602 -0.737722 0.168763 2109 4389 5.13747 7.96984",
    ),
    (panet, "kaixin96/PANet at 1695bf3", "2.85616 4.06179 5.77309 6.04158 3.15934 3299 2219 2434 0.87222"),
    (
        sg_one,
        "xiaomengyc/SG-One at 7436ca4",
        "3.13152 0.892453 0.431192 -0.445934 -1.48165 3513 463 "
        "3.13595 0.890898 0.423875 -0.442468 -1.48062 3512 464 3509 467",
    ),
    (
        pixda_losses,
        "taveraantonio/PixDA at 7803bf1",
        "0.974189 1.23032 0.980274 0.0861161 0.114196 0.223403 1.05177 1.86755 0.490292 0.0456341 0 0 "
        "0.418102 0.202422 0.537953 -0.536403 0.251431 -0.698048 0.722661",
    ),
    (
        pixda_discriminators,
        "taveraantonio/PixDA at 7803bf1",
        "0.0547296 1.03579 0.936974 1.65802 0.906347 0.128125 0.266273 -2.19989 -2.12356 -0.0523039 0.609091",
    ),
    (pixda_stylisation, "taveraantonio/PixDA at 7803bf1", "0.21848 2.13597 2.32805 2.10337 0.521551"),
    (
        pixda_segmenter,
        "taveraantonio/PixDA at 7803bf1",
        "92.8123 0.19251 2.05921 0.87653 -0.0211531 47 2948 77 91.5158 0.222459 1.89596 0.886108 0.0160458 35 3007 78",
    ),
]
"""What is computed, the repository with the commit of the code that gave the numbers, the numbers."""


@pytest.mark.parametrize(("ours", "source", "released"), CASES, ids=[ours.__name__ for ours, _, _ in CASES])
@torch.no_grad()
def test_ours_gives_what_the_released_code_gave(ours, source, released):
    numbers = np.array(released.split(), dtype=float)
    np.testing.assert_allclose(ours(), numbers, rtol=1e-4, atol=2e-5, err_msg=f"as {source}")
