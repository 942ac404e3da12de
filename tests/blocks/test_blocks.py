"""Every function of the blocks, asked alike: against NumPy, void, order, gradients, precision, what it refuses. 6 s.

The rows are in table.py; what is special about one of them is in the file of its lesson.
"""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from fsslib.blocks import adversarial, contrast, memory, pooling, similarity, stylise
from fsslib.episodes import VOID
from tests.blocks.table import BLOCKS

ALL = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
HAVE_FLOATS = {name: block for name, block in BLOCKS.items() if block.shapes}
HAVE_VOID = {name: block for name, block in BLOCKS.items() if VOID in block.values}
FLOATS = pytest.mark.parametrize("block", HAVE_FLOATS.values(), ids=HAVE_FLOATS)
WITH_VOID = pytest.mark.parametrize("block", HAVE_VOID.values(), ids=HAVE_VOID)


@ALL
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 999))
def test_it_equals_its_definition(block, seed):
    floats, labels = block.drawn(seed)
    for options in block.options:
        found = block.call(*floats, *labels, **options)
        expected = block.oracle(*(x.numpy() for x in (*floats, *labels)), **options)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=str(options))


@WITH_VOID
def test_void_pixels_have_no_influence_and_all_void_costs_nothing(block):
    floats, (labels,) = block.drawn()
    void = (labels == VOID)[:, None]
    elsewhere = [torch.where(void, 7.0, x) if x.shape[2:] == labels.shape[1:] else x for x in floats]
    nothing, leaves = torch.full_like(labels, VOID), [x.clone().requires_grad_() for x in floats]
    for options in block.options:
        found = block.call(*elsewhere, labels, **options)
        torch.testing.assert_close(found, block.call(*floats, labels, **options), msg=str(options))
        empty = block.call(*leaves, nothing, **options)
        assert (empty == 0).all()
        if empty.requires_grad:
            empty.sum().backward()
    assert all(x.grad is not None and (x.grad == 0).all() for x in leaves)


@ALL
def test_the_order_of_the_batch_does_not_matter(block):
    given_inputs = [x for part in block.drawn() for x in part]
    order = torch.tensor([1, 0, *range(2, len(given_inputs[0]))])
    for options in block.options:
        found = block.call(*given_inputs, **options)
        moved = block.call(*(x[order] for x in given_inputs), **options)
        torch.testing.assert_close(moved, found[order] if found.ndim else found, msg=str(options))


@FLOATS
def test_gradients(block):
    """Of float64, where what is a weight by design is attached."""
    floats, labels = block.drawn()
    wanted = [x.requires_grad_(block.call is not adversarial.distillation_loss or x is floats[0]) for x in floats]
    for options in block.options[::3]:
        options = options | ({"detach_maps": False, "normalise_map": False} if "detach_maps" in options else {})
        assert torch.autograd.gradcheck(lambda *x, how=options: block.call(*x, *labels, **how), wanted, fast_mode=True)


@FLOATS
@pytest.mark.parametrize("factor", [1e4, 0.0], ids=["extreme", "nothing but zeros"])
def test_extreme_and_empty_inputs_give_finite_values_and_gradients(block, factor):
    floats, labels = block.drawn()
    for options in block.options:
        leaves = [(factor * x).float().requires_grad_() for x in floats]
        found = block.call(*leaves, *labels, **options)
        if found.requires_grad:
            found.sum().backward()
        assert torch.isfinite(found).all(), options
        assert all(x.grad is None or torch.isfinite(x.grad).all() for x in leaves), options


@pytest.mark.parametrize("name", sorted(HAVE_FLOATS.keys() - {"orthogonality"}))  # of parameters, float32 always
def test_low_precision_rounds_the_inputs_and_nothing_else(name):
    block = BLOCKS[name]
    floats, labels = block.drawn()
    coarse = [x.bfloat16() for x in floats]
    for options in block.options:
        expected = block.call(*(x.float() for x in coarse), *labels, **options)
        found = block.call(*coarse, *labels, **options)
        assert found.dtype == (torch.bfloat16 if block.keeps_dtype else torch.float32)
        assert torch.equal(found, expected.to(found.dtype)), options
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(block.call(*(x.float() for x in coarse), *labels, **options), expected)


# What is refused. The shape checks of the tests would refuse some of it before the function can.

LOGITS, DOMAIN = torch.zeros(2, 4, 8, 8), torch.zeros(2, 1, 8, 8)
GROUND = torch.zeros(2, 8, 8, dtype=torch.int64)
PROTOTYPES = torch.ones(2, 6)
IMAGES, OTHERS = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 8, 30)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: adversarial.domain_loss(DOMAIN, "Target"), 'domain is "source" or "target"; found \'Target\''),
        (lambda: adversarial.pixel_difficulty_map(LOGITS[..., ::4, ::4], GROUND), "logits are 2x2, the labels 8x8: up"),
        (
            lambda: adversarial.pixadv_loss(LOGITS, DOMAIN[..., ::4, ::4], GROUND),
            r"per pixel of the labels \(2, 8, 8\); found \(2, 1, 2, 2\)\. Upsample",
        ),
        (
            lambda: adversarial.pixadv_loss(LOGITS, DOMAIN, GROUND, reduce="mean"),
            'reduce is "valid" or "all"; found \'mean\'',
        ),
        (lambda: adversarial.focal_loss(LOGITS, GROUND, gamma=-1.0), r"gamma is 0 .* or above; found -1\.0"),
        (
            lambda: adversarial.distillation_loss(LOGITS, LOGITS, teacher_temperature=0.0),
            r"teacher_temperature is above 0; found 0\.0",
        ),
        (
            lambda: adversarial.distillation_loss(LOGITS, LOGITS, class_reduce="max"),
            'class_reduce is "mean" or "sum"; found \'max\'',
        ),
        (
            lambda: contrast.prototype_contrastive_loss(PROTOTYPES, PROTOTYPES, temperature=0.0),
            r"temperature is above 0; found 0\.0",
        ),
        (lambda: memory.orthogonality_loss(PROTOTYPES, PROTOTYPES), "constant below 3 items, or 2 .*; found 2"),
        (
            lambda: memory.orthogonality_loss(PROTOTYPES, PROTOTYPES, diagonal=True),
            "constant below 3 items, or 2 with centred=False; found 2",
        ),
        (
            lambda: memory.orthogonality_loss(PROTOTYPES[:1], PROTOTYPES[:1], centred=False),
            "constant below 3 items, or 2 with centred=False; found 1",
        ),
        (lambda: pooling.grid_weights(GROUND, (2, 2), resize="neither"), "resize.*found 'neither'"),
        (lambda: pooling.merge_shots(LOGITS, rule="vote"), r"integers 0 and 1; found torch\.float32"),
        (
            lambda: pooling.merge_shots(LOGITS, rule="loudest"),
            'Unknown rule \'loudest\'; there are "mean", "union", "vote", "majority"',
        ),
        (
            lambda: similarity.merge_ways(torch.full((1, 2, 2, 3, 3), 0.5), rule="harmonic"),
            "'harmonic'.*arithmetic.*geometric",
        ),
        (
            lambda: stylise.fourier_stylise(IMAGES, OTHERS, 4),
            r"9 bins does not fit into images of 8 pixels: .* at most 3 here; found 4",
        ),
        (lambda: stylise.fourier_stylise(IMAGES, OTHERS, -1), r"counts Fourier bins, 0 or more; found -1"),
        (lambda: stylise.fourier_stylise(IMAGES, OTHERS, 0.01), r"found 0\.01\. A share L .* int\(L \* min\(H, W\)\)"),
        (
            lambda: stylise.fourier_stylise(IMAGES, OTHERS[:1], 2),
            r"needs one target image; found \(2, 3, 16, 16\) and \(1, 3, 8, 30\)",
        ),
    ],
)
def test_what_is_refused_says_what_there_is(call, said, monkeypatch):
    for module in (adversarial, contrast, memory, pooling, similarity, stylise):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            monkeypatch.setattr(module, name, inspect.unwrap(function))
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("value", [4, -1, 254])
@pytest.mark.parametrize("name", ["difficulty map", "balance map", "pixadv", "focal"])
def test_labels_outside_the_classes_are_refused(name, value):
    floats, (labels,) = BLOCKS[name].drawn()
    labels[1, 2, 3] = value
    with pytest.raises(ValueError, match=rf"Labels of 4 classes are 0 to 3, and 255 for void; found \[{value}\]"):
        BLOCKS[name].call(*floats, labels)


@pytest.mark.parametrize("function", [adversarial.pixel_difficulty_map, adversarial.focal_loss])
def test_logits_on_the_feature_grid_are_refused(function):
    with pytest.raises(TypeCheckError):
        function(LOGITS[..., ::4, ::4], GROUND)
