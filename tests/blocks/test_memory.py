"""The meta-memory against golden values and NumPy loops; its collapse as printed; gradients, precision. About 6 s."""

import inspect
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fsslib.blocks.memory import EPS, MetaMemory, feature_statistics, orthogonality_loss

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FLOOR = EPS**0.5
# From a batch of three and an item bank of three, ema 0.9; the second item is orthogonal to the whole batch.
GOLDEN_SAMPLES = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])
GOLDEN_ITEMS = torch.tensor([[1.0, 0, 0], [0, 0, 1], [1, 1, 1]])
GOLDEN_UPDATE = torch.tensor([[1.0, 0.041421, 0], [0, 0, 0.9], [0.970711, 0.970711, 0.9]])


def drawn(batch, channels=6, seed=0, dtype=torch.float64):
    """Random means and deviations as they come after a ReLU: nowhere negative."""
    generator = torch.Generator().manual_seed(seed)
    mean, std = torch.rand(2, batch, channels, generator=generator, dtype=torch.float64) + 0.05
    return mean.to(dtype), std.to(dtype)


def memory_of(mean, std, **options):
    """A full memory in float64 that holds these items, and the running mean of this one batch."""
    memory = MetaMemory(mean.shape[1], len(mean), **options).double()
    memory.store(mean, std)
    return memory


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


def cosines(these, those):
    return F.cosine_similarity(these.detach()[:, None], those.detach()[None], dim=2)


def mean_cosine(items):
    table = cosines(items, items)
    return ((table.sum() - table.trace()) / (len(items) * (len(items) - 1))).item()


def spread(items):
    """The distance of the items from their mean, as a share of that mean's length."""
    items = items.detach()
    return ((items - items.mean(0)).square().sum(1).mean().sqrt() / items.mean(0).norm()).item()


def cosine_in_numpy(one, other):
    """0 for a zero vector, such as a sample that is itself the running mean."""
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / lengths) if lengths else 0.0


# The statistics


@settings(deadline=None, max_examples=30)
@given(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)), st.integers(0, 99))
def test_statistics_equal_numpy(shape, seed):
    features = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean, std = feature_statistics(features)
    np.testing.assert_allclose(mean, features.numpy().mean((2, 3)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(std, np.sqrt(features.numpy().var((2, 3)) + 1e-5), rtol=1e-12)


def test_a_constant_map_has_the_smallest_deviation_and_finite_gradients():
    features = torch.full((1, 2, 4, 4), 3.0, requires_grad=True)
    mean, std = feature_statistics(features)
    assert (mean == 3).all()
    torch.testing.assert_close(std, torch.full((1, 2), FLOOR))
    std.sum().backward()
    assert (features.grad == 0).all()


def test_statistics_are_exact_where_the_mean_is_large_and_in_bfloat16():
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact = (noise + 1000).double().numpy().std((2, 3))
    np.testing.assert_allclose(feature_statistics(noise + 1000)[1], exact, rtol=1e-4)
    coarse = noise.bfloat16()
    for found, expected in zip(feature_statistics(coarse), feature_statistics(coarse.float())):
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


def test_gradients_of_the_statistics():
    features = torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(feature_statistics, (features.requires_grad_(),))


# Orthogonality


def test_golden_orthogonality():
    def loss(**options):
        return orthogonality_loss(GOLDEN_ITEMS, GOLDEN_ITEMS, **options).item()

    assert loss(centred=False, diagonal=True) == pytest.approx(0.589933, abs=1e-6)
    assert loss(centred=False) == pytest.approx(0.384900, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(3, 8), st.booleans(), st.booleans(), st.integers(0, 99))
def test_orthogonality_equals_the_double_sum(items, centred, diagonal, seed):
    banks = drawn(items, seed=seed)
    total = pairs = 0
    for bank in (b.numpy() for b in banks):
        bank = bank - bank.mean(0) if centred else bank
        for i, j in np.ndindex(items, items):
            if i != j or diagonal:
                total += abs(cosine_in_numpy(bank[i], bank[j]))
                pairs += 1
    found = orthogonality_loss(*banks, centred=centred, diagonal=diagonal)
    assert found.item() == pytest.approx(total / pairs, rel=1e-9)
    assert 0 <= found <= 1
    order = torch.randperm(items)
    again = orthogonality_loss(*(b[order] for b in banks), centred=centred, diagonal=diagonal)
    torch.testing.assert_close(again, found)


@pytest.mark.parametrize("items", [16, 32])
def test_floors_of_the_orthogonality(items):
    apart, same = torch.eye(items, dtype=torch.float64), torch.ones(items, 5, dtype=torch.float64)
    printed = {"centred": False, "diagonal": True}
    assert orthogonality_loss(apart, apart, **printed).item() == pytest.approx(1 / items)
    assert orthogonality_loss(same, same, **printed).item() == pytest.approx(1)
    assert orthogonality_loss(apart, apart, centred=False).item() == 0
    # Orthonormal vectors less their mean are a regular simplex.
    assert orthogonality_loss(apart, apart).item() == pytest.approx(1 / (items - 1))


@pytest.mark.parametrize("options", [{}, {"centred": False, "diagonal": True}])
def test_gradients_of_the_orthogonality(options):
    items = tuple(bank.requires_grad_() for bank in drawn(4))
    assert torch.autograd.gradcheck(lambda m, s: orthogonality_loss(m, s, **options), items)


def test_items_that_are_the_same_get_no_gradient_from_the_printed_orthogonality():
    bank = torch.rand(1, 5, dtype=torch.float64).repeat(4, 1).requires_grad_()
    orthogonality_loss(bank, bank, centred=False, diagonal=True).backward()
    assert bank.grad.abs().max() < 1e-15


@pytest.mark.parametrize(("items", "options"), [(2, {}), (2, {"diagonal": True}), (1, {}), (1, {"centred": False})])
def test_an_orthogonality_that_would_be_constant_is_refused(items, options):
    with pytest.raises(ValueError, match=f"constant below 3 items, or 2 with centred=False; found {items}"):
        orthogonality_loss(*drawn(items), **options)
    if items == 2:
        with pytest.raises(ValueError, match="constant below 3"):
            MetaMemory(6, items=2).orthogonality()
        first, second = (bank.numpy() for bank in drawn(2))
        expected = (cosine_in_numpy(*first) + cosine_in_numpy(*second)) / 2
        assert orthogonality_loss(*drawn(2), centred=False).item() == pytest.approx(expected)


# Filling the bank


def test_the_first_different_samples_become_the_items():
    mean, std = drawn(5, dtype=torch.float32)
    memory = MetaMemory(6, items=4)
    assert memory.filled == 0
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
    features = torch.randn(50, 6, 3, 3, generator=torch.Generator().manual_seed(1))
    memory = MetaMemory(6, items=8)
    rules = [(rule, joint) for rule in ("lowest", "highest", "random") for joint in (True, False)]
    for rule, memory.joint in rules:
        index = memory.select(mean, std, rule)
        assert torch.equal(memory.enhance(features, index, 0.3), features)
    assert memory.orthogonality() == 0
    memory.store(mean[:3], std[:3])
    for rule, memory.joint in rules:
        assert memory.select(mean, std, rule).max() < 3
    assert memory.orthogonality() == 0
    memory.orthogonality().backward()
    assert (memory.mean.grad == 0).all()
    assert (memory.std.grad == 0).all()
    memory.store(mean[3:8], std[3:8])
    assert memory.orthogonality() > 0


# The sound update


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
    share = max(0.5, 1 - ema)
    centre = (1 - share) * centres[0] + share * centres[1]
    np.testing.assert_allclose(memory.centre, centre, rtol=1e-12)
    expected = assigned_in_numpy(
        [bank.numpy() for bank in first], [v.numpy() for v in second], centre, ema, temperature
    )
    np.testing.assert_allclose(memory.mean.detach(), expected[0], rtol=1e-9)
    np.testing.assert_allclose(memory.std.detach(), expected[1], rtol=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["assign", "batch"]), st.integers(1, 9), st.integers(0, 99))
def test_the_order_of_a_batch_does_not_matter_once_the_bank_is_full(update, batch, seed):
    first = drawn(4, seed=seed)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    memories = [memory_of(*first, update=update, ema=0.9, reseed_after=2) for _ in range(2)]
    for step in range(6):
        mean, std = drawn(batch, seed=seed + step + 1)
        memories[0].store(mean, std)
        memories[1].store(mean[order], std[order])
    for one, other in zip(memories[0].state_dict().values(), memories[1].state_dict().values()):
        torch.testing.assert_close(one, other)


def test_the_running_mean_is_a_plain_mean_first_and_a_moving_average_later():
    memory, seen = MetaMemory(6, items=2, ema=0.9).double(), []
    for step in range(30):
        mean, std = drawn(3, seed=step)
        memory.store(mean, std)
        seen.append(torch.cat([mean, std], 1).mean(0))
        if step < 10:
            torch.testing.assert_close(memory.centre, torch.stack(seen).mean(0))
        else:
            expected = 0.9 * expected + 0.1 * seen[-1]
            torch.testing.assert_close(memory.centre, expected)
        expected = memory.centre.clone()


def test_batches_of_one_are_enough_to_learn_the_styles():
    world, memory = World(), MetaMemory(64, items=12, ema=0.9)
    for _ in range(300):
        memory.store(*world.batch(size=1))
    assert torch.isfinite(memory.mean).all()
    assert remembered(memory, world).min() > 0.95


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


# The printed update


def test_golden_value_of_the_printed_update():
    memory = memory_of(GOLDEN_ITEMS.double(), GOLDEN_ITEMS.double() + 0.5, update="batch", ema=0.9)
    memory.store(GOLDEN_SAMPLES.double(), GOLDEN_SAMPLES.double() + 0.5)
    torch.testing.assert_close(memory.mean.detach(), GOLDEN_UPDATE.double(), rtol=0, atol=1e-6)


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


def test_the_printed_update_of_a_batch_of_one_is_a_moving_average():
    (mean, std), (new_mean, new_std) = drawn(3), drawn(1, seed=1)
    memory = memory_of(mean, std, update="batch", ema=0.9)
    memory.store(new_mean, new_std)
    torch.testing.assert_close(memory.mean.detach(), 0.9 * mean + 0.1 * new_mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(memory.std.detach(), 0.9 * std + 0.1 * new_std, rtol=1e-5, atol=0)


# Collapse, and none


def remembered(memory, world):
    """For each style of the world the centred cosine of the item that is most like it."""
    middle = world.means.mean(0)
    return cosines(world.means - middle, memory.mean - middle).amax(1)


def trained(update, ema, steps, orthogonality=False):
    world, memory = World(), MetaMemory(64, items=12, ema=ema, update=update)
    optimizer = torch.optim.SGD([memory.parameter_group()], lr=0.1)
    for _ in range(steps):
        if orthogonality:
            optimizer.zero_grad()
            memory.orthogonality().backward()
            optimizer.step()
        memory.store(*world.batch())
    return memory, world


@pytest.mark.parametrize(("ema", "steps", "orthogonality"), [(0.9, 150, False), (0.9, 150, True), (0.99, 400, False)])
def test_printed_items_become_one_vector_and_the_sound_ones_remember_the_styles(ema, steps, orthogonality):
    memory, world = trained("batch", ema, steps, orthogonality)
    assert 0.9 < mean_cosine(world.means) < 0.95
    assert 0.2 < spread(world.means) < 0.3
    assert mean_cosine(memory.mean) > 0.9999
    assert mean_cosine(memory.std) > 0.9999
    assert spread(memory.mean) < 0.01
    memory, world = trained("assign", ema, steps, orthogonality)
    assert mean_cosine(memory.mean) < 0.97
    assert mean_cosine(memory.std) < 0.97
    assert spread(memory.mean) > 0.15
    assert remembered(memory, world).min() > 0.97


def test_lowest_and_highest_are_the_same_style_after_the_collapse_only():
    for update, apart in (("batch", False), ("assign", True)):
        memory, world = trained(update, 0.9, 150)
        mean, std = world.batch(size=32)
        low, high = (memory.mean.detach()[memory.select(mean, std, rule)[:, 0]] for rule in ("lowest", "highest"))
        assert ((low - high).norm(dim=1).mean() > 0.1 * mean.norm(dim=1).mean()) == apart


# Selecting


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
def test_random_selection_is_uniform_and_obeys_its_generator(joint):
    memory = memory_of(*drawn(4), joint=joint)
    mean, std = drawn(4000, seed=1)
    one, two, other = (
        memory.select(mean, std, "random", generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    for column in one.T:
        assert (column.bincount(minlength=4) - 1000).abs().max() < 150
    same = (one[:, 0] == one[:, 1]).double().mean().item()
    assert same == (1 if joint else pytest.approx(0.25, abs=0.04))


# Enhancing


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.one_of(st.floats(0, 1), st.none()), st.integers(0, 99))
def test_enhancement_equals_the_equations(batch, alpha, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, 6, 4, 3, generator=generator, dtype=torch.float64)
    memory = memory_of(*drawn(5, seed=seed))
    index = torch.randint(5, (batch, 2), generator=generator)
    given_alpha = torch.rand(batch, generator=generator) if alpha is None else alpha
    found = memory.enhance(features, index, given_alpha).detach().numpy()
    means, stds = memory.mean.detach().numpy(), memory.std.detach().numpy()
    for b, c in np.ndindex(batch, 6):
        plane = features[b, c].numpy()
        own = float(given_alpha[b]) if alpha is None else alpha
        mean, std = plane.mean(), np.sqrt(plane.var() + 1e-5)
        mixed_mean = own * mean + (1 - own) * means[index[b, 0], c]
        mixed_std = own * std + (1 - own) * stds[index[b, 1], c]
        np.testing.assert_allclose(found[b, c], (plane - mean) / std * mixed_std + mixed_mean, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alpha", [1.0, torch.ones(3)])
def test_alpha_one_is_the_identity_to_the_bit(alpha, dtype):
    memory = MetaMemory(6, items=4)
    memory.store(*drawn(4, dtype=torch.float32))
    features = (5 * torch.randn(3, 6, 8, 8, generator=torch.Generator().manual_seed(0))).to(dtype)
    found = memory.enhance(features, torch.tensor([[0, 1], [2, 2], [3, 0]]), alpha)
    assert found.dtype == dtype
    assert torch.equal(found, features)


def test_alpha_zero_takes_over_the_item_and_its_own_style_changes_nothing():
    features = torch.randn(3, 6, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    memory = memory_of(*feature_statistics(features))
    own = torch.arange(3)[:, None].expand(3, 2)
    torch.testing.assert_close(memory.enhance(features, own, 0.0), features)
    mean, std = feature_statistics(memory.enhance(features, own.roll(1, 0), 0.0))
    torch.testing.assert_close(mean, memory.mean.detach().roll(1, 0))
    torch.testing.assert_close(std, memory.std.detach().roll(1, 0), rtol=1e-4, atol=0)


def test_a_constant_map_stays_constant_and_takes_the_mixed_mean():
    memory = MetaMemory(6, items=4)
    memory.store(*drawn(4, dtype=torch.float32))
    features = torch.full((1, 6, 5, 5), 2.0, requires_grad=True)
    index = memory.select(*feature_statistics(features.detach()), "lowest")
    found = memory.enhance(features, index, 0.25)
    expected = (0.5 + 0.75 * memory.mean.detach()[index[0, 0]])[None, :, None, None].expand_as(found)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    found.square().sum().backward()
    assert torch.isfinite(features.grad).all()


# Gradients


def test_only_the_orthogonality_moves_the_items():
    memory = memory_of(*drawn(4))
    features = torch.randn(3, 6, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features.requires_grad_()
    mean, std = feature_statistics(features)
    memory.enhance(features, memory.select(mean, std, "lowest"), 0.5).square().sum().backward()
    assert features.grad.abs().min() > 0
    assert memory.mean.grad is None
    assert memory.std.grad is None
    memory.store(mean, std)
    assert memory.mean.is_leaf
    assert not memory.centre.requires_grad
    memory.orthogonality().backward()
    assert memory.mean.grad.abs().max() > 0
    assert memory.std.grad.abs().max() > 0
    assert [name for name, _ in memory.named_parameters()] == ["mean", "std"]


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_gradients_of_the_enhancement(alpha):
    memory = memory_of(*drawn(4))
    features = torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    index = torch.tensor([[0, 1], [3, 3]])
    assert torch.autograd.gradcheck(lambda f: memory.enhance(f, index, alpha), (features.requires_grad_(),))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_the_group_of_the_items_has_neither_momentum_nor_decay(name):
    memory = memory_of(*drawn(4))
    other = torch.nn.Parameter(torch.ones(2))
    options = {"SGD": {"momentum": 0.9}, "Adam": {}, "AdamW": {}}[name]
    group = memory.parameter_group()
    assert group["name"] == "memory"
    optimizer = getattr(torch.optim, name)([{"params": [other]}, group], lr=0.01, weight_decay=0.1, **options)
    before = memory.mean.detach().clone()
    for step in range(2):
        optimizer.zero_grad()
        if step == 0:
            (memory.orthogonality() + other.sum()).backward()
            gradient = memory.mean.grad.clone()
        else:
            memory.mean.grad, other.grad = torch.zeros_like(memory.mean), torch.zeros_like(other)
        optimizer.step()
        if step == 0:
            after = memory.mean.detach().clone()
    assert torch.equal(memory.mean, after), "a step without a gradient moves nothing"
    if name == "SGD":
        torch.testing.assert_close(after, before - 0.01 * gradient)


def test_deviations_stay_positive_whatever_the_optimiser_did():
    memory = memory_of(*drawn(4))
    with torch.no_grad():
        memory.std[0] = -1
    memory.store(*drawn(2, seed=1))
    assert memory.std.min() >= FLOOR


# What is kept, where and how precisely it is computed


@pytest.mark.parametrize("update", ["assign", "batch"])
def test_a_saved_memory_goes_on_as_if_nothing_had_happened(update):
    world = World()
    memory = MetaMemory(64, items=8, update=update, reseed_after=3)
    shapes = {name: value.shape for name, value in memory.state_dict().items()}
    for _ in range(4):
        memory.store(*world.batch(size=5))
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    other = MetaMemory(64, items=8, update=update, reseed_after=3)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert {name: value.shape for name, value in other.state_dict().items()} == shapes
    for _ in range(6):
        mean, std = world.batch(size=5)
        for rule in ("lowest", "highest"):
            assert torch.equal(memory.select(mean, std, rule), other.select(mean, std, rule))
        memory.store(mean, std)
        other.store(mean, std)
    for name, value in memory.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("device", DEVICES)
def test_autocast_changes_nothing_and_devices_agree(device):
    features = torch.rand(12, 6, 8, 8, generator=torch.Generator().manual_seed(0))

    def used(where, autocast):
        memory, given_features = MetaMemory(6, items=4, ema=0.9).to(where), features.to(where)
        with torch.autocast(torch.device(where).type, dtype=torch.bfloat16, enabled=autocast):
            mean, std = feature_statistics(given_features)
            for part in range(0, 12, 3):
                memory.store(mean[part : part + 3], std[part : part + 3])
            index = [memory.select(mean, std, rule) for rule in ("lowest", "highest")]
            index.append(memory.select(mean, std, "random", generator=torch.Generator().manual_seed(0)))
            memory.orthogonality().backward()
            return memory.mean, memory.mean.grad, *(memory.enhance(given_features, i, 0.3) for i in index)

    for found, expected in zip(used(device, True), used("cpu", False)):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_features_are_enhanced_with_one_rounding():
    memory = MetaMemory(6, items=4)
    memory.store(*drawn(4, dtype=torch.float32))
    features = torch.rand(3, 6, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    index = memory.select(*feature_statistics(features), "lowest")
    found = memory.enhance(features, index, torch.tensor([0.1, 0.5, 0.9]))
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, memory.enhance(features.float(), index, torch.tensor([0.1, 0.5, 0.9])).bfloat16())


# What is refused


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_statistics_that_are_no_numbers_are_refused_before_anything_is_written(bad):
    memory = memory_of(*drawn(4))
    before = {name: value.clone() for name, value in memory.state_dict().items()}
    mean, std = drawn(3, seed=1)
    std[1, 2] = bad
    with pytest.raises(ValueError, match=r"1 of 3 samples.*not finite: nothing was stored.*NaN in the features"):
        memory.store(mean, std)
    for name, value in memory.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    "options", [{"items": 0}, {"ema": 1.5}, {"ema": -0.1}, {"temperature": 0.0}, {"reseed_after": 0}]
)
def test_options_out_of_range_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name}.* needed; found .*{name}={value}"):
        MetaMemory(6, **options)


def test_unknown_names_are_refused():
    # The shape checks of the tests would refuse the argument before the method can.
    unchecked = inspect.unwrap(MetaMemory.__init__)
    with pytest.raises(ValueError, match='update is "assign" or "batch"; found \'soft\''):
        unchecked(MetaMemory.__new__(MetaMemory), 6, update="soft")
    memory = memory_of(*drawn(4))
    with pytest.raises(ValueError, match='Unknown rule \'nearest\'; there are "lowest", "highest" and "random"'):
        inspect.unwrap(MetaMemory.select)(memory, *drawn(2), "nearest")
