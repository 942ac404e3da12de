"""What every method must do, asked of all of them: forward, backward, odd sizes, ways and shots, saving, precision."""

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from fsslib.data import open_task
from fsslib.methods import METHODS, build_method, method_class
from fsslib.methods.base import Method, Prediction, TrainingDiverged, check_finite
from fsslib.reproduction.config import ConfigError, parse
from fsslib.training.evaluate import evaluate
from fsslib.training.fit import fit
from fsslib.training.recipe import Recipe
from tests.methods.contract import (
    ALL_METHODS,
    DEVICE,
    EPISODIC,
    SPLIT,
    images_of,
    random_batch,
    random_episode,
    small_method,
    without_labels,
)


@pytest.fixture(params=ALL_METHODS)
def name(request):
    return request.param


@pytest.fixture(params=EPISODIC)
def episodic(request):
    return request.param


@pytest.mark.parametrize(("ways", "shots"), [(1, 1), (1, 3), (2, 1), (3, 2)])
def test_forward_and_predict_shapes(episodic, ways, shots):
    method, episode = small_method(episodic).eval(), random_episode(ways=ways, shots=shots)
    logits = method(episode)
    assert logits.shape == (2, 1 + ways, 32, 32)
    assert torch.isfinite(logits).all()
    prediction = method.predict(episode)
    assert isinstance(prediction, Prediction)
    assert prediction.labels.shape == (2, 32, 32)
    assert prediction.presence.shape == (2, ways)
    assert set(prediction.labels.unique().tolist()) <= set(range(ways + 1))


@pytest.mark.parametrize(("height", "width"), [(33, 47), (16, 50), (65, 64)])
def test_odd_sizes(name, height, width):
    method = small_method(name).eval()
    assert method(random_batch(name, height=height, width=width)).shape[-2:] == (height, width)


@pytest.mark.parametrize("batch", [1, 3])
def test_losses_are_named_scalars_with_gradients(episodic, batch):
    method = small_method(episodic).train()
    losses = method.losses(random_episode(batch=batch))
    assert losses
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    without = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_every_trainable_parameter_is_in_exactly_one_group(name):
    method = small_method(name)
    grouped = [id(p) for groups in method.parameter_groups().values() for g in groups for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters() if p.requires_grad)


def test_prediction_never_looks_at_the_answer(name):
    method, batch = small_method(name).eval(), random_batch(name)
    told, untold = method.predict(batch), method.predict(without_labels(batch))
    assert torch.equal(told.labels, untold.labels)
    assert torch.equal(told.presence, untold.presence)


def test_batches_do_not_mix_in_eval_mode(name):
    method, batch = small_method(name).eval(), random_batch(name, batch=3)
    whole = method.predict(batch).scores
    single = torch.cat([method.predict(batch[i : i + 1]).scores for i in range(3)])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-4)


def test_an_empty_support_mask_gives_a_defined_answer(episodic):
    method, episode = small_method(episodic).eval(), random_episode()
    empty = replace(episode, support_masks=torch.zeros_like(episode.support_masks))
    assert torch.isfinite(method(empty)).all()


def test_save_load_equal_logits(name, tmp_path):
    method, batch = small_method(name).train(), random_batch(name, batch=4)
    optimizers = {k: torch.optim.SGD(g, lr=0.01) for k, g in method.parameter_groups().items()}
    method.training_step(batch, optimizers)
    method.after_step()
    torch.save(method.state_dict(), tmp_path / "m.pt")
    fresh = build_method(name).to(DEVICE)
    fresh.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
    assert torch.equal(method.eval()(batch), fresh.eval()(batch))


def test_a_training_step_moves_parameters_and_returns_numbers(name):
    method = small_method(name).train()
    before = copy.deepcopy(method.state_dict())
    optimizers = {k: torch.optim.SGD(g, lr=0.1) for k, g in method.parameter_groups().items()}
    values = method.training_step(random_batch(name, batch=4), optimizers)
    assert values
    assert all(isinstance(v, float) for v in values.values())
    moved = [n for n, p in method.named_parameters() if not torch.equal(p, before[n])]
    assert moved


def test_bfloat16_stays_near_float32(name):
    method, batch = small_method(name).eval(), random_batch(name)
    full = method.predict(batch).scores.softmax(1)
    method.compute_dtype = torch.bfloat16
    low = method.predict(batch).scores
    assert low.dtype == torch.float32
    assert (low.softmax(1) - full).abs().mean() < 0.05


@pytest.mark.parametrize("split", SPLIT)
def test_encode_and_decode_equal_forward(split):
    method, episode = small_method(split).eval(), random_episode(ways=2, shots=2)
    flat = method.encode(episode.support_images.flatten(0, 2), episode.support_masks.flatten(0, 2))
    support = {k: v.unflatten(0, (2, 2, 2)) for k, v in flat.items()}
    decoded = method.decode(support, method.encode(episode.query_images))
    torch.testing.assert_close(decoded, method(episode), rtol=1e-4, atol=1e-4)


def test_no_tensor_is_left_on_the_wrong_device(name):
    """Shapes alone, on the meta device: a hidden move to the CPU would fail here."""
    method, batch = small_method(name).eval().to("meta"), random_batch(name).to("meta")
    assert method(batch).device.type == "meta"


def test_nan_is_refused_before_any_weight_moves(name):
    method = small_method(name).train()
    batch = random_batch(name, batch=2)
    field = "images" if images_of(batch) is getattr(batch, "images", None) else "query_images"
    broken = replace(batch, **{field: torch.full_like(images_of(batch), float("nan"))})
    before = copy.deepcopy(dict(method.named_parameters()))
    optimizers = {k: torch.optim.SGD(g, lr=0.1) for k, g in method.parameter_groups().items()}
    with pytest.raises(TrainingDiverged, match="nan"):
        method.training_step(broken, optimizers)
    assert all(torch.equal(p, before[n]) for n, p in method.named_parameters())


def test_a_method_without_parts_says_so_when_they_are_asked_for():
    method, episode = build_method("tests.methods.contract:OnlyForward"), random_episode()
    with pytest.raises(NotImplementedError, match="OnlyForward does not split into encode and decode"):
        method.encode(episode.query_images)
    with pytest.raises(NotImplementedError, match="does not split"):
        Method()(episode)


def test_a_method_with_forward_alone_trains_goes_on_and_is_evaluated(tmp_path):
    """By the recipe of the prototypes, which is that of methods that have none."""
    recipe = Recipe.load("tests.methods.contract:OnlyForward").with_changes(steps=4)
    task = open_task("toy", targets=["night"], size=32)
    streams, classes = task.streams(batch_size=2), task.train_classes

    def train(steps, **saved):
        torch.manual_seed(0)
        method = build_method("tests.methods.contract:OnlyForward", sharpness=5.0)
        history = fit(method, recipe.with_changes(steps=steps), streams, classes=classes, progress=False, **saved)
        return method, history

    method, history = train(4, checkpoint=tmp_path / "last.pt")
    assert len(history.series("segmentation")) == 4
    assert method.sharpness.item() != 5.0
    again, _ = train(4, checkpoint=tmp_path / "last.pt")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in method.state_dict().items())
    exam = task.exams(4)["night"]
    assert evaluate(method, exam).compute().episodes == 4


def test_names_and_what_they_take_are_known_without_torch():
    code = "import sys; from fsslib.methods import *; print(list(filter(adapts, METHODS)), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pixda'] False"
    assert [name for name in METHODS if method_class(name).adapts] == ["pixda"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "nowhere.at_all:Net",
            "'nowhere.at_all:Net' cannot be imported: No module named 'nowhere'.* on PYTHONPATH",
        ),
        (".contract:Net", "cannot be imported"),
        (":Net", "there are prototype, sg_one, .*One of your own is named package.module:Class"),
        ("tests.methods.contract:", "there are prototype"),
        ("tests.methods.contract:Net", "tests.methods.contract has no method 'Net', found None; derive a class"),
        ("tests.methods.contract:Recipe", "has no method 'Recipe', found <class 'fsslib.training.recipe.Recipe'>"),
        ("tests.methods.contract:small_method", "has no method 'small_method', found <function"),
    ],
)
def test_a_name_that_leads_to_no_method_says_why(name, said):
    with pytest.raises(ValueError, match=said):
        build_method(name)
    with pytest.raises(ConfigError, match=f"method: .*{said}"):
        parse({"method": name})


def test_a_run_takes_a_method_of_your_own_and_its_hash_names_it_as_given():
    own = "tests.methods.contract:OnlyForward"
    config = parse({"method": own, "method_options": {"sharpness": "3"}})
    assert (config.method, config.method_options) == (own, {"sharpness": 3})
    assert config.run_id.startswith("toy-tests.methods.contract.OnlyForward-tiny-fold0")
    assert len({config.sha256, parse({"method": own}).sha256, parse({}).sha256}) == 3
    with pytest.raises(ConfigError, match="streets needs a domain adaptation method, found 'tests"):
        parse({"method": own, "data": "streets"})


def test_unknown_names_say_what_there_is():
    with pytest.raises(ValueError, match="prototype, sg_one"):
        build_method("sgone")
    with pytest.raises(ValueError, match=r"no option widht; it has width"):
        build_method("sg_one", widht=3)
    with pytest.raises(ValueError, match="no option padding"):
        build_method("prototype", padding=3)


def test_check_finite_names_the_losses():
    with pytest.raises(TrainingDiverged, match="a = inf"):
        check_finite({"a": torch.tensor(float("inf")), "b": torch.tensor(1.0)})
