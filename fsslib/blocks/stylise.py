"""Other looks of the same picture: another domain's low frequencies, and other light. Nothing moves, labels stay right.

Derived in notebooks 40 and 60.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def fourier_stylise(
    source: Float[Tensor, "B 3 H W"], target: Float[Tensor, "B 3 h w"], half_width: int
) -> Float[Tensor, "B 3 H W"]:
    """Source images with the low-frequency amplitude of the target images at the same place of the batch.

    Of each channel's Fourier transform the amplitudes in the centred window of (2 half_width + 1)^2 bins become the
    target's; phases and all other bins stay. Yang, Soatto, "FDA: Fourier Domain Adaptation for Semantic Segmentation",
    CVPR 2020, where half_width = floor(L min(H, W)). With the L = 0.01 of FDA and PixDA that is 5 at 512x1024 and 0
    below 100 pixels: half_width = 0 swaps the mean of each channel, x - mean(x) + mean(target), and nothing else.

    Sizes may differ: a bin counts waves per image, and its amplitude per pixel is compared, so no image is resized. The
    result is not clipped, as in the release, for that would undo part of the swap: values a little outside [0, 1] are
    normal, and harmless to a network; clamp them for display. Raises ValueError for batches that do not pair up and for
    a window that does not fit into both images.
    """
    if not isinstance(half_width, int) or half_width < 0:
        raise ValueError(
            f"half_width counts Fourier bins, 0 or more; found {half_width!r}. A share L of the shorter side is "
            "half_width = int(L * min(H, W))."
        )
    if source.shape[:2] != target.shape[:2]:
        raise ValueError(
            f"Each source image needs one target image; found {tuple(source.shape)} and {tuple(target.shape)}. "
            "target[torch.arange(len(source)) % len(target)] pairs them."
        )
    shortest = min(*source.shape[-2:], *target.shape[-2:])
    if 2 * half_width + 1 > shortest:
        raise ValueError(
            f"A window of {2 * half_width + 1} bins does not fit into images of {shortest} pixels: half_width is at "
            f"most {(shortest - 1) // 2} here; found {half_width}."
        )
    # norm="forward" divides by the number of pixels. Of a real image half the columns say all: negative waves mirror.
    # torch 2.6 refuses images that are views of one channel, hence contiguous.
    spectrum, style = (
        torch.fft.rfft2(x.to(torch.promote_types(x.dtype, torch.float32)).contiguous(), norm="forward")
        for x in (source, target)
    )
    rows = torch.arange(-half_width, half_width + 1, device=source.device)[:, None]
    columns = torch.arange(half_width + 1, device=source.device)
    window = (..., rows, columns)
    spectrum[window] = torch.polar(style[window].abs(), spectrum[window].angle())
    return torch.fft.irfft2(spectrum, s=source.shape[-2:], norm="forward").to(source.dtype)


def photometric_twin(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """The same images in other light: each gets its own brightness, contrast and gain of each colour.

    Gains are uniform in [0.6, 1.4]; values stay in [0, 1].
    """
    gain, contrast, brightness = (
        0.6 + 0.8 * torch.rand(len(images), channels, 1, 1, device=images.device) for channels in (3, 1, 1)
    )
    middle = images.mean((1, 2, 3), keepdim=True)
    return (((images - middle) * contrast + middle * brightness) * gain).clamp(0, 1)
