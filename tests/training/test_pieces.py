"""Batches in pieces, batches made ahead, compiling: the same training by other means. About 30 s."""

import signal
import threading
import time
from dataclasses import replace

import pytest
import torch

from fsslib.data import open_task
from fsslib.data.streams import ahead
from fsslib.episodes import EpisodeStream
from fsslib.methods import build_method
from fsslib.training.checkpoint import load_checkpoint
from fsslib.training.fit import fit
from fsslib.training.recipe import OptimizerSpec, Phase, Recipe


def quiet(name, **options):
    """A method whose batch norm keeps its statistics, so that an image's features do not depend on its neighbours."""
    torch.manual_seed(0)
    method = build_method(name, weights="tiny-toy-fold0.pt" if name != "pixda" else "none", **options)
    method.backbone.frozen_batch_norm = True
    return method


def toy(batch_size=4):
    task = open_task("toy", fold=0, size=32)
    return {"source": EpisodeStream(task.train, task.train_classes, batch_size=batch_size)}


PLAIN = Recipe(phases=(Phase(name="plain", steps=3, optimizers={"segmenter": OptimizerSpec(name="sgd", lr=0.01)}),))
"""Adam's first steps are signs, which would blow rounding up."""


def trained(method, data, recipe=PLAIN, steps=3, **options):
    history = fit(method, recipe.with_changes(steps=steps), data, progress=False, **options)
    return method.state_dict(), history


def differences(first, second):
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(first.values(), second.values()))


@pytest.mark.parametrize("name", ["sg_one", "prototype"])
def test_accumulated_gradients_are_those_of_the_whole_batch(name):
    (whole, one), (pieces, many) = (trained(quiet(name), toy(), accumulate=count) for count in (1, 4))
    assert differences(whole, quiet(name).state_dict()) > 1e-4
    assert differences(whole, pieces) < 1e-6
    assert many.series("segmentation") == pytest.approx(one.series("segmentation"), abs=1e-6)


@pytest.fixture(scope="module")
def streets():
    """The streams of eight streets and two of another place, and what PixDA is told about them."""
    task = open_task("streets", source="game", targets=("meadow",), size=32)
    task = replace(task, source_ids=task.source_ids[:8])
    return task.streams(batch_size=2, shots=2), {"discriminator_width": 4, **task.method_options}


def test_three_phases_of_an_adversarial_step_accumulate_as_well(streets):
    data, options = streets[0], {"select": False, "balance": False, **streets[1]}
    specs = {name: OptimizerSpec(name="sgd", lr=0.01) for name in Recipe.load("pixda").phases[0].optimizers}
    recipe = Recipe(phases=(Phase(name="both", data="both", steps=1, optimizers=specs),))
    (whole, one), (pieces, many) = (
        trained(quiet("pixda", **options), data, recipe, steps=1, accumulate=count) for count in (1, 2)
    )
    assert differences(whole, quiet("pixda", **options).state_dict()) > 1e-4
    # The focal loss is a mean over labelled pixels, of which the pieces have not quite as many each.
    assert differences(whole, pieces) < 1e-4
    assert one.rows[0] == pytest.approx(many.rows[0], rel=0.02)


def test_pieces_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="batch of 4 does not fall into 3 equal pieces"):
        trained(quiet("sg_one"), toy(), accumulate=3)
    with pytest.raises(ValueError, match="RememberTheDifference keeps something of all samples"):
        trained(quiet("rtd"), toy(), Recipe.load("rtd"), accumulate=2)


class Slow:
    """Batches that are their number, made slowly; one of them cannot be made."""

    def __init__(self, broken=None):
        self.broken, self.threads, self.asked = broken, set(), []

    def batch(self, step, *, among=None):
        self.threads.add(threading.current_thread().name)
        self.asked.append(step)
        time.sleep(0.01)
        if step == self.broken:
            raise ValueError(f"no batch {step}")
        return step, among


def test_batches_made_ahead_are_the_same_and_none_beyond_the_last():
    stream = Slow()
    with ahead({"source": stream}, 2, 5) as (streams, rest):
        assert [streams["source"].batch(step) for step in range(3)] == [(step, None) for step in range(3)]
        rest()
        assert stream.asked == [0, 1, 2, 3, 4], "two more are there"
        assert streams["source"].broken is None
        assert streams["source"].batch(3, among=[1]) == (3, [1]), "other options, another batch"
        assert [streams["source"].batch(step, among=[1]) for step in (4, 5)] == [(4, [1]), (5, [1])]
        assert not hasattr(streams["source"], "target")
    assert max(stream.asked) == 5
    assert threading.current_thread().name not in stream.threads
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_what_fails_in_the_thread_is_raised_at_its_step():
    with ahead({"source": Slow(broken=2)}, 2, 9) as (streams, _):
        assert streams["source"].batch(0) == (0, None)
        assert streams["source"].batch(1) == (1, None)
        with pytest.raises(ValueError, match="no batch 2"):
            streams["source"].batch(2)


@pytest.mark.parametrize("stop_after", [None, 1])
def test_training_with_batches_made_ahead_is_the_same_to_the_bit(tmp_path, stop_after):
    data, recipe, path = toy(2), Recipe.load("rtd"), tmp_path / "c.pt"
    plain, _ = trained(quiet("rtd"), data, recipe, steps=4)
    if stop_after is not None:
        method, steps = quiet("rtd"), iter(range(10))
        store = method.after_step

        def after_step():
            if next(steps) == stop_after:
                signal.raise_signal(signal.SIGINT)
            store()

        method.after_step = after_step
        with pytest.raises(KeyboardInterrupt, match="after step 2 of 4"):
            trained(method, data, recipe, steps=4, checkpoint=path, prepare_ahead=2)
        assert not any(thread.name.startswith("batches") for thread in threading.enumerate())
    made_ahead, history = trained(quiet("rtd"), data, recipe, steps=4, checkpoint=path, prepare_ahead=2)
    assert len(history.rows) == 4
    assert all(torch.equal(made_ahead[name], plain[name]) for name in plain)


def test_selected_images_can_be_drawn_ahead_too(streets):
    data, options = streets[0], {"threshold": 0.69, **streets[1]}
    states = [
        trained(quiet("pixda", **options), data, Recipe.load("pixda"), steps=6, prepare_ahead=count)[0]
        for count in (0, 2)
    ]
    assert int(states[0]["passes"]) > 1
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.fixture
def translated_by(monkeypatch):
    """Training with torch.compile by a backend: the state, and the functions that were handed to it."""

    def train(backend, **options):
        compiled, real = [], torch.compile
        with monkeypatch.context() as patch:
            patch.setattr(torch, "compile", lambda f, **_: compiled.append(f) or real(f, backend=backend))
            return trained(quiet("sg_one"), toy(2), steps=2, compile=True, **options)[0], compiled

    return train


def test_a_compiled_backbone_keeps_its_names(translated_by, tmp_path):
    """The backend that translates nothing: what is tested is what fit makes of torch.compile."""
    state, compiled = translated_by("eager", checkpoint=tmp_path / "c.pt")
    assert len(compiled) == 4, "a stage each"
    assert translated_by("eager", checkpoint=tmp_path / "c.pt")[1] == [], "a training that is complete compiles nothing"
    plain, _ = trained(quiet("sg_one"), toy(2), steps=2)
    assert list(load_checkpoint(tmp_path / "c.pt")["method"]) == list(plain)
    assert differences(state, plain) < 1e-6


def test_what_cannot_be_compiled_runs_as_it_is(translated_by):
    def broken(graph, inputs):
        raise RuntimeError("no working C++ compiler found")

    state, compiled = translated_by(broken)
    assert len(compiled) == 4
    plain, _ = trained(quiet("sg_one"), toy(2), steps=2)
    assert all(torch.equal(state[name], plain[name]) for name in plain)


def test_bfloat16_has_channels_last_and_its_checkpoint_serves_both(tmp_path):
    method = quiet("sg_one")
    trained(method, toy(2), steps=2, dtype=torch.bfloat16, checkpoint=tmp_path / "c.pt")
    assert method.guidance.weight.is_contiguous(memory_format=torch.channels_last)
    fresh = quiet("sg_one")
    fresh.load_state_dict(load_checkpoint(tmp_path / "c.pt")["method"])
    assert torch.equal(fresh.guidance.weight, method.guidance.weight)
    assert fresh.guidance.weight.is_contiguous()
