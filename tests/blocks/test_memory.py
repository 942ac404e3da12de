"""The meta-memory against NumPy loops; its collapse as printed; what it keeps and refuses. 4 s.

Statistics, re-styling and orthogonality in NumPy, their gradients and precision, are in test_blocks.py.
"""

import inspect
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.blocks.memory import EPS, MetaMemory, feature_statistics, restyle

FLOOR = EPS**0.5
# From a batch of three and an item bank of three, ema 0.9; the second item is orthogonal to the whole batch.


def drawn(batch, channels=6, seed=0, dtype=torch.float64):
    """Random means and deviations as they come after a ReLU: nowhere negative."""
    generator = torch.Generator().manual_seed(seed)
    mean, std = torch.rand(2, batch, channels, generator=generator, dtype=torch.float64) + 0.05
    return mean.to(dtype), std.to(dtype)


def features_of(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def memory_of(mean, std, **options):
    """A full memory in float64 that holds these items, and the running mean of this one batch."""
    memory = MetaMemory(mean.shape[1], len(mean), **options).double()
    memory.store(mean, std)
    return memory


def held(memory):
    return {name: value.clone() for name, value in memory.state_dict().items()}


def assert_equal(found, expected, **how):
    """Two state dicts."""
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **how)


class World:
    """Endless batches of six styles that share a base, so that their cosines are all high, with a little noise."""

    def __init__(self, channels=64, noise=0.05, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        base = torch.rand(channels, generator=self.generator)
        self.means = base + torch.rand(6, channels, generator=self.generator)
        self.stds = (base + torch.rand(6, channels, generator=self.generator)) / 2
        self.noise = noise

    def batch(self, size=8, styles=6):
        style = torch.randint(styles, (size,), generator=self.generator)
        noise = self.noise * torch.randn(2, size, self.means.shape[1], generator=self.generator)
        return (self.means[style] + noise[0]).clamp(min=0), (self.stds[style] + noise[1]).clamp(min=FLOOR)

    def remembered_by(self, memory):
        """For each style the centred cosine of the item that is most like it."""
        middle = self.means.mean(0)
        return cosines(self.means - middle, memory.mean - middle).amax(1)


def cosines(these, those):
    return F.cosine_similarity(these.detach()[:, None], those.detach()[None], dim=2)


def mean_cosine(items):
    table = cosines(items, items)
    return ((table.sum() - table.trace()) / (len(items) * (len(items) - 1))).item()


def cosine_in_numpy(one, other):
    """0 for a zero vector, such as a sample that is itself the running mean."""
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / lengths) if lengths else 0.0


# Statistics and orthogonality


def test_statistics_of_a_constant_map_and_of_a_large_mean():
    features = torch.full((1, 2, 4, 4), 3.0, requires_grad=True)
    mean, std = feature_statistics(features)
    assert (mean == 3).all()
    torch.testing.assert_close(std, torch.full((1, 2), FLOOR))
    std.sum().backward()
    assert (features.grad == 0).all()
    large = features_of(2, 3, 32, 32, dtype=torch.float32) + 1000
    np.testing.assert_allclose(feature_statistics(large)[1], large.double().numpy().std((2, 3)), rtol=1e-4)


# Filling the bank


def test_the_first_different_samples_become_the_items():
    mean, std = drawn(5, dtype=torch.float32)
    memory = MetaMemory(6, items=4)
    twice = torch.tensor([0, 1, 1])
    memory.store(mean[twice], std[twice])
    assert memory.filled == 2
    known = memory.mean.detach()[:2].clone()
    memory.store(mean[2:], std[2:])
    assert memory.filled == 4
    torch.testing.assert_close(memory.mean[2:].detach(), mean[2:4], rtol=0.02, atol=0)
    torch.testing.assert_close(memory.std[2:].detach(), std[2:4], rtol=0.02, atol=0)
    moved = (memory.mean.detach() - torch.cat([known, mean[2:4]])).norm(dim=1)
    assert moved.argmax() == memory.select(mean[4:], std[4:], "highest")[0, 0], "the sample left over moves the nearest"


def test_free_items_are_never_selected_and_an_empty_bank_changes_nothing():
    mean, std = drawn(50, dtype=torch.float32)
    features, memory = features_of(50, 6, 3, 3, dtype=torch.float32), MetaMemory(6, items=8)
    rules = [(rule, joint) for rule in ("lowest", "highest", "random") for joint in (True, False)]
    for rule, memory.joint in rules:
        assert torch.equal(memory.enhance(features, memory.select(mean, std, rule), 0.3), features)
    assert memory.orthogonality() == 0
    memory.store(mean[:3], std[:3])
    for rule, memory.joint in rules:
        assert memory.select(mean, std, rule).max() < 3
    memory.orthogonality().backward()
    assert not memory.mean.grad.any()
    assert not memory.std.grad.any()
    memory.store(mean[3:8], std[3:8])
    assert memory.orthogonality() > 0


# The updates


def assigned_in_numpy(items, samples, centre, ema, temperature):
    """The docstring's equations read aloud, item by item; `items` and `samples` are pairs of mean and deviation."""
    styles = [np.concatenate([mean, std], 1) - centre for mean, std in (items, samples)]
    share = np.zeros((len(samples[0]), len(items[0])))
    for b, j in np.ndindex(share.shape):
        share[b, j] = np.exp(cosine_in_numpy(styles[1][b], styles[0][j]) / temperature)
    share /= share.sum(1, keepdims=True)
    moved = [bank.copy() for bank in items]
    for j, weight in enumerate(share.sum(0)):
        if weight >= 1e-3:
            for bank, values in zip(moved, samples):
                target = sum(share[b, j] * values[b] for b in range(len(values))) / weight
                bank[j] += (1 - ema) * min(weight, 1) * (target - bank[j])
    return moved


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 6), st.floats(0.1, 1), st.sampled_from([0.05, 0.5]), st.integers(0, 99))
def test_the_update_equals_the_equations(items, batch, ema, temperature, seed):
    # No smaller ema: a centre that forgets at once is the sample itself, and the cosine of what is left is rounding.
    first, second = drawn(items, seed=seed), drawn(batch, seed=seed + 1000)
    memory = memory_of(*first, ema=ema, temperature=temperature)
    memory.store(*second)
    # Two writes: the running mean is still the plain mean of the two batches, or younger for a small ema.
    centres = [torch.cat(pair, 1).mean(0).numpy() for pair in (first, second)]
    centre = centres[0] + max(0.5, 1 - ema) * (centres[1] - centres[0])
    np.testing.assert_allclose(memory.centre, centre, rtol=1e-12)
    banks = [[bank.numpy() for bank in pair] for pair in (first, second)]
    for found, expected in zip((memory.mean, memory.std), assigned_in_numpy(*banks, centre, ema, temperature)):
        np.testing.assert_allclose(found.detach(), expected, rtol=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 6), st.floats(0, 1), st.integers(0, 99))
def test_the_printed_update_equals_the_equations(items, batch, ema, seed):
    first, second = drawn(items, seed=seed), drawn(batch, seed=seed + 1000)
    memory = memory_of(*first, update="batch", ema=ema)
    memory.store(*second)
    for found, bank, values in zip((memory.mean, memory.std), first, second):
        for j, item in enumerate(bank.numpy()):
            alike = [max(cosine_in_numpy(item, value), 0) for value in values.numpy()]
            target = sum(s * value for s, value in zip(alike, values.numpy())) / (sum(alike) + 1e-6)
            np.testing.assert_allclose(found[j].detach(), ema * item + (1 - ema) * target, rtol=1e-9)


def test_the_running_mean_is_a_plain_mean_first_and_a_moving_average_later():
    memory, seen = MetaMemory(6, items=2, ema=0.9).double(), []
    for step in range(30):
        mean, std = drawn(3, seed=step)
        memory.store(mean, std)
        seen.append(torch.cat([mean, std], 1).mean(0))
        expected = torch.stack(seen).mean(0) if step < 10 else 0.9 * expected + 0.1 * seen[-1]
        torch.testing.assert_close(memory.centre, expected)


def test_a_dead_item_takes_the_sample_that_is_least_like_any_item():
    world = World()
    memory = MetaMemory(64, items=4, reseed_after=5)
    memory.store(world.means[:4], world.stds[:4])
    # From here on only the styles 0 and 1 are seen, and then a stranger that is still nearest to style 0.
    for step in range(5):
        assert memory.idle[2:].tolist() == [step, step]
        memory.store(world.means[:2], world.stds[:2])
    torch.testing.assert_close(memory.mean[2], world.means[0], rtol=0, atol=0.2)
    assert memory.idle.tolist() == [0, 0, 0, 5], "one item in a write"
    mean, std = (0.6 * style[[0, 0]] + 0.4 * style[[0, 5]] for style in (world.means, world.stds))
    memory.store(mean, std)
    assert torch.equal(memory.mean[3], mean[1])
    assert torch.equal(memory.std[3], std[1])
    assert memory.idle[3] == 0


def test_an_item_far_from_every_sample_stays_where_it_is():
    mean = torch.eye(3, dtype=torch.float64)
    memory = memory_of(mean, mean + 0.1)
    memory.store(mean[:1], mean[:1] + 0.1)
    assert torch.equal(memory.mean, mean)
    memory.store(mean[:1] * 1.5, mean[:1] + 0.1)
    assert torch.equal(memory.mean[1:], mean[1:])
    assert 1 < memory.mean[0, 0] < 1.5


def test_printed_items_become_one_vector_and_the_sound_ones_remember_the_styles():
    """So that lowest and highest are the same style in the one and not in the other, whatever orthogonality does."""
    for update in ("batch", "assign"):
        world, memory = World(), MetaMemory(64, items=12, ema=0.9, update=update)
        optimizer = torch.optim.SGD([memory.parameter_group()], lr=0.1)
        for _ in range(150):
            optimizer.zero_grad()
            memory.orthogonality().backward()
            optimizer.step()
            memory.store(*world.batch())
        alike = [mean_cosine(bank) for bank in (memory.mean, memory.std)]
        mean, std = world.batch(size=32)
        low, high = (memory.mean.detach()[memory.select(mean, std, rule)[:, 0]] for rule in ("lowest", "highest"))
        choice = (low - high).norm(dim=1).mean() / mean.norm(dim=1).mean()
        if update == "batch":
            assert min(alike) > 0.9999
            assert choice < 0.1
        else:
            assert max(alike) < 0.97
            assert world.remembered_by(memory).min() > 0.97
            assert choice > 0.1
    assert 0.9 < mean_cosine(world.means) < 0.95


# Selecting and enhancing


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.booleans(), st.integers(0, 99))
def test_selection_equals_the_largest_and_the_smallest_cosine(items, batch, joint, seed):
    banks, values = drawn(items, seed=seed), drawn(batch, seed=seed + 1000)
    memory = memory_of(*banks, joint=joint)
    alike = np.zeros((2, batch, items))
    for kind, b, j in np.ndindex(alike.shape):
        alike[kind, b, j] = cosine_in_numpy(values[kind][b].numpy(), banks[kind][j].numpy())
    if joint:
        alike[:] = alike.mean(0)
    np.testing.assert_array_equal(memory.select(*values, "highest"), alike.argmax(2).T)
    np.testing.assert_array_equal(memory.select(*values, "lowest"), alike.argmin(2).T)


@pytest.mark.parametrize("joint", [True, False])
def test_random_selection_is_uniform_and_obeys_the_seed(joint):
    memory, (mean, std) = memory_of(*drawn(4), joint=joint), drawn(4000, seed=1)
    one, two, other = (torch.manual_seed(s) and memory.select(mean, std, "random") for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    for column in one.T:
        assert (column.bincount(minlength=4) - 1000).abs().max() < 150
    same = (one[:, 0] == one[:, 1]).double().mean().item()
    assert same == (1 if joint else pytest.approx(0.25, abs=0.04))


def test_enhancement_takes_the_mean_of_one_item_and_the_deviation_of_another():
    features, memory = features_of(3, 6, 4, 3), memory_of(*drawn(5))
    index, alpha = torch.tensor([[4, 0], [1, 2], [3, 3]]), torch.tensor([0.0, 0.3, 0.9])
    expected = restyle(features, memory.mean.detach()[index[:, 0]], memory.std.detach()[index[:, 1]], alpha)
    torch.testing.assert_close(memory.enhance(features, index, alpha), expected)
    for b, share in enumerate(alpha.tolist()):
        torch.testing.assert_close(memory.enhance(features[b : b + 1], index[b : b + 1], share), expected[b : b + 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alpha", [1.0, torch.ones(3)])
def test_alpha_one_is_the_identity_to_the_bit(alpha, dtype):
    memory = MetaMemory(6, items=4)
    memory.store(*drawn(4, dtype=torch.float32))
    features = (5 * features_of(3, 6, 8, 8)).to(dtype)
    found = memory.enhance(features, torch.tensor([[0, 1], [2, 2], [3, 0]]), alpha)
    assert found.dtype == dtype
    assert torch.equal(found, features)


# Gradients and optimisers


def test_only_the_orthogonality_moves_the_items():
    memory, features = memory_of(*drawn(4)), features_of(3, 6, 4, 4).requires_grad_()
    mean, std = feature_statistics(features)
    memory.enhance(features, memory.select(mean, std, "lowest"), 0.5).square().sum().backward()
    assert features.grad.abs().min() > 0
    assert memory.mean.grad is memory.std.grad is None
    memory.store(mean, std)
    assert memory.mean.is_leaf
    assert not memory.centre.requires_grad
    memory.orthogonality().backward()
    assert memory.mean.grad.abs().max() > 0
    assert memory.std.grad.abs().max() > 0
    assert [name for name, _ in memory.named_parameters()] == ["mean", "std"]


@pytest.mark.parametrize(("name", "options"), [("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {})])
def test_the_group_of_the_items_has_neither_momentum_nor_decay(name, options):
    """A step without a gradient moves nothing."""
    memory, other = memory_of(*drawn(4)), torch.nn.Parameter(torch.ones(2))
    groups = [{"params": [other]}, memory.parameter_group()]
    assert groups[1]["name"] == "memory"
    optimizer = getattr(torch.optim, name)(groups, lr=0.01, weight_decay=0.1, **options)
    before = memory.mean.detach().clone()
    (memory.orthogonality() + other.sum()).backward()
    gradient = memory.mean.grad.clone()
    optimizer.step()
    after = memory.mean.detach().clone()
    memory.mean.grad, other.grad = torch.zeros_like(memory.mean), torch.zeros_like(other)
    optimizer.step()
    assert torch.equal(memory.mean, after)
    assert not torch.equal(before, after)
    if name == "SGD":
        torch.testing.assert_close(after, before - 0.01 * gradient)


def test_deviations_stay_positive_whatever_the_optimiser_did():
    memory = memory_of(*drawn(4))
    with torch.no_grad():
        memory.std[0] = -1
    memory.store(*drawn(2, seed=1))
    assert memory.std.min() >= FLOOR


# What is kept, how precisely, and what is refused


@pytest.mark.parametrize("update", ["assign", "batch"])
def test_a_saved_memory_goes_on_as_if_nothing_had_happened(update):
    world = World()
    memory, other = (MetaMemory(64, items=8, update=update, reseed_after=3) for _ in range(2))
    for _ in range(4):
        memory.store(*world.batch(size=5))
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))  # which refuses another shape
    for _ in range(6):
        mean, std = world.batch(size=5)
        for rule in ("lowest", "highest"):
            assert torch.equal(memory.select(mean, std, rule), other.select(mean, std, rule))
        memory.store(mean, std)
        other.store(mean, std)
    assert_equal(other.state_dict(), memory.state_dict(), rtol=0, atol=0)


def test_autocast_changes_nothing():
    features = features_of(12, 6, 8, 8, dtype=torch.float32)

    def used(autocast):
        memory = MetaMemory(6, items=4, ema=0.9)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            mean, std = feature_statistics(features)
            for part in range(0, 12, 3):
                memory.store(mean[part : part + 3], std[part : part + 3])
            index = [memory.select(mean, std, rule) for rule in ("lowest", "highest")]
            memory.orthogonality().backward()
            return memory.mean, memory.mean.grad, *(memory.enhance(features, i, 0.3) for i in index)

    for found, expected in zip(used(True), used(False)):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_statistics_that_are_no_numbers_are_refused_before_anything_is_written(bad):
    memory = memory_of(*drawn(4))
    before = held(memory)
    mean, std = drawn(3, seed=1)
    std[1, 2] = bad
    with pytest.raises(ValueError, match=r"1 of 3 samples.*not finite: nothing was stored.*NaN in the features"):
        memory.store(mean, std)
    assert_equal(memory.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"items": 0}, "items.* needed; found items=0"),
        ({"ema": 1.5}, "needed; found .*ema=1.5"),
        ({"ema": -0.1}, "needed; found .*ema=-0.1"),
        ({"temperature": 0.0}, "temperature.* needed; found .*temperature=0.0"),
        ({"reseed_after": 0}, "reseed_after.* needed; found .*reseed_after=0"),
        ({"update": "soft"}, 'update is "assign" or "batch"; found \'soft\''),
        ({"rule": "nearest"}, 'Unknown rule \'nearest\'; there are "lowest", "highest" and "random"'),
    ],
)
def test_what_is_refused_says_what_there_is(options, said):
    # The shape checks of the tests would refuse names before the method can.
    inputs = (memory_of(*drawn(4)), *drawn(2)) if "rule" in options else (MetaMemory.__new__(MetaMemory), 6)
    call = inspect.unwrap(MetaMemory.select if "rule" in options else MetaMemory.__init__)
    with pytest.raises(ValueError, match=said):
        call(*inputs, **options)
