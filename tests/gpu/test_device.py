"""What the processor does, the device does too: on the GPU with FSSLIB_TEST_DEVICE=cuda (`make gpu`), else with itself.

The oracles of all these numbers are in the other tests, on the processor. There the equalities are exact. About 15 s.
"""

import copy
from functools import partial

import pytest
import torch

from fsslib.blocks import memory, stylise
from fsslib.blocks.correlation import CentrePivotBlock
from fsslib.data import open_task
from fsslib.data.toyworld import DOMAINS, ToyWorld
from fsslib.data.toyworld.streets import Streets
from fsslib.episodes import EpisodeManifest, EpisodeSet
from fsslib.training.evaluate import evaluate
from fsslib.training.fit import fit
from fsslib.training.recipe import Recipe
from tests.blocks.table import BLOCKS
from tests.methods.contract import ALL_METHODS, DEVICE, random_batch, small_method


def numbers(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def written_memory(features):
    bank = memory.MetaMemory(6, items=4).to(features.device)
    for batch in (features, 2 * features.flip(0)):
        bank.store(*memory.feature_statistics(batch))
    index = bank.select(*memory.feature_statistics(features), "lowest")
    return bank.enhance(features, index, 0.3) + bank.orthogonality()


def squeezed(query, support):
    torch.manual_seed(0)
    block = CentrePivotBlock(1, 8, 3, stride=2).to(query.device)
    return block(torch.einsum("bchw,bcij->bhwij", query, support)[:, None])


FUNCTIONS = {
    "memory": (written_memory, numbers(4, 6, 9, 9)),
    "stylising": (lambda a, b: stylise.fourier_stylise(a, b, 2), numbers(4, 3, 9, 9), numbers(4, 3, 9, 9, seed=1)),
    "centre-pivot convolution": (squeezed, numbers(4, 6, 9, 9), numbers(4, 6, 9, 9, seed=1)),
}
for name, block in BLOCKS.items():
    floats, labels = block.drawn()
    if floats:
        FUNCTIONS[name] = (
            partial(block.call, **next(o for o in block.options if not o.get("detach_maps"))),
            *(x.float() for x in floats),
            *labels,
        )


def with_gradient(function, inputs, device):
    """The value and the gradient by the first input, on the processor again."""
    first, *rest = (x.to(device) for x in inputs)
    first.requires_grad_()
    value = function(first, *rest)
    (value.square().sum()).backward()
    return value.detach().cpu(), first.grad.cpu()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_blocks_and_losses_are_those_of_the_processor(name):
    function, *inputs = FUNCTIONS[name]
    for there, here in zip(with_gradient(function, inputs, DEVICE), with_gradient(function, inputs, "cpu")):
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)
        assert here.abs().sum() > 0


@pytest.mark.parametrize("name", ALL_METHODS)
def test_methods_answer_and_learn_as_on_the_processor(name):
    batch, here = random_batch(name, batch=2, height=64, width=64).to("cpu"), small_method(name).cpu()
    there = copy.deepcopy(here).to(DEVICE)
    torch.testing.assert_close(
        there.eval().predict(batch.to(DEVICE)).scores.softmax(1).cpu(),
        here.eval().predict(batch).scores.softmax(1),
        rtol=1e-2,
        atol=1e-3,
    )
    there.train().compute_dtype = torch.bfloat16
    optimizers = {k: torch.optim.SGD(g, lr=0.1) for k, g in there.parameter_groups().items()}
    before = copy.deepcopy(there.state_dict())
    values = there.training_step(batch.to(DEVICE), optimizers)
    there.after_step()
    assert all(torch.isfinite(torch.tensor(value)) for value in values.values())
    assert any(not torch.equal(value, before[key]) for key, value in there.state_dict().items())
    assert {tensor.device.type for tensor in there.state_dict().values()} == {torch.device(DEVICE).type}


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_toy_world_looks_the_same_wherever_it_is_drawn(domain):
    ids = ["c1001-000007", "c1002+c1009-000011"]
    (there, there_map), (here, here_map) = (ToyWorld(domain, device=d).images(ids) for d in (DEVICE, "cpu"))
    assert there.device.type == torch.device(DEVICE).type
    assert (there_map.cpu() == here_map).float().mean() > 0.995
    assert (there.cpu() - here).abs().mean() < 0.01


def test_streets_look_the_same_wherever_they_are_drawn():
    there, here = (Streets("game", size=32, device=device).images(["game-000001"]) for device in (DEVICE, "cpu"))
    assert (there.labels.cpu() == here.labels).float().mean() > 0.98


@pytest.mark.parametrize("options", [{}, {"dtype": torch.bfloat16, "accumulate": 2}])
def test_a_run_that_was_stopped_goes_on_and_ends_as_one_that_was_not(tmp_path, options):
    task = open_task("toy", fold=0, size=32, device=DEVICE)
    recipe, data = Recipe.load("sg_one").with_changes(steps=6), task.streams(batch_size=4)
    how = {"device": DEVICE, "progress": False, "prepare_ahead": 2, **options}
    whole = fit(small_method("sg_one"), recipe, data, **how)

    method, steps = small_method("sg_one"), iter(range(6))

    def stop():
        if next(steps) == 4:
            raise RuntimeError("the power is gone")

    method.after_step = stop
    path = {"checkpoint": tmp_path / "c.pt", "checkpoint_every": 3}
    with pytest.raises(RuntimeError, match="power"):
        fit(method, recipe, data, **path, **how)
    resumed = fit(small_method("sg_one"), recipe, data, **path, **how)
    losses = [history.series("segmentation") for history in (whole, resumed)]
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=1e-6 if DEVICE == "cpu" else 0.05)


def test_evaluation_counts_the_same_pixels():
    counts = []
    for device in (DEVICE, "cpu"):
        world = ToyWorld(size=32)
        exam = EpisodeSet(world, EpisodeManifest(tuple(world.sample((1001, 1002), 4))))
        counts.append(evaluate(small_method("prototype"), exam, device=device).binary)
    assert counts[0].sum(1).tolist() == counts[1].sum(1).tolist() == [32 * 32] * 4
    assert (counts[0] - counts[1]).abs().max() < 0.02 * 32 * 32
