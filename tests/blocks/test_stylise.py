"""The stylisation against a whole spectrum in NumPy and what it keeps; the twin in other light. 1 s."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.blocks.stylise import fourier_stylise, photometric_twin


def drawn_images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def stylised_by_numpy(source, target, half_width):
    """FDA on the whole, centred spectrum, for images of the same size."""
    there = np.fft.fftshift(np.fft.fft2(source), axes=(-2, -1))
    style = np.fft.fftshift(np.fft.fft2(target), axes=(-2, -1))
    amplitude, phase = np.abs(there), np.angle(there)
    row, column = source.shape[-2] // 2, source.shape[-1] // 2
    window = (
        ...,
        slice(row - half_width, row + half_width + 1),
        slice(column - half_width, column + half_width + 1),
    )
    amplitude[window] = np.abs(style)[window]
    mixed = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase), axes=(-2, -1)))
    assert np.abs(mixed.imag).max() < 1e-12
    return mixed.real


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(9, 20), st.integers(9, 20), st.integers(0, 4), st.integers(0, 99))
def test_stylisation_equals_the_whole_spectrum_in_numpy(batch, height, width, half_width, seed):
    source, target = (drawn_images(batch, 3, height, width, seed=seed + i) for i in (0, 100))
    found = fourier_stylise(source, target, half_width)
    np.testing.assert_allclose(found, stylised_by_numpy(source.numpy(), target.numpy(), half_width), atol=1e-12)


def test_the_amplitude_inside_the_window_is_the_targets_and_all_else_the_sources():
    source, target = drawn_images(1, 3, 15, 15), drawn_images(1, 3, 30, 45, seed=1)
    before, after = torch.fft.fft2(source), torch.fft.fft2(fourier_stylise(source, target, 3))
    style = torch.fft.fft2(target) * (15 * 15) / (30 * 45)
    inside = torch.zeros(15, 15, dtype=torch.bool)
    for row in range(-3, 4):
        for column in range(-3, 4):
            inside[row, column] = True
            torch.testing.assert_close(after[..., row, column].abs(), style[..., row, column].abs())
    torch.testing.assert_close(after[..., ~inside], before[..., ~inside])
    phase = torch.exp(1j * (after.angle() - before.angle()))
    torch.testing.assert_close(phase, torch.ones_like(phase))


def test_black_and_uniform_images_are_stylised_without_nan():
    black, target = torch.zeros(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    for source in (black, black + 0.5):
        for half_width in (0, 3):
            result = fourier_stylise(source, target, half_width)
            assert torch.isfinite(result).all()
            torch.testing.assert_close(result.mean((2, 3)), target.mean((2, 3)))
    torch.testing.assert_close(fourier_stylise(target, black, 0).mean((2, 3)), torch.zeros(1, 3), atol=1e-6, rtol=0)


def test_bfloat16_is_computed_in_float32():
    images = torch.rand(1, 3, 16, 16).bfloat16()
    styled = fourier_stylise(images, images.flip(3) / 2, 3)
    assert styled.dtype == torch.bfloat16
    torch.testing.assert_close(styled, fourier_stylise(images.float(), images.flip(3).float() / 2, 3).bfloat16())


def test_the_twin_keeps_places_and_changes_light():
    images = torch.rand(5, 3, 16, 16)
    twin = photometric_twin(images)
    assert twin.min() >= 0
    assert twin.max() <= 1
    grey = images.mean(1).flatten(1), twin.mean(1).flatten(1)
    for before, after in zip(*grey):
        assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.85
    assert (twin.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs().min() > 0
