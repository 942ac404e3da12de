"""Recipes, the loop, checkpoints and resuming to the bit, the best weights on held-out images."""

import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from fsslib.data import open_task
from fsslib.data.streams import ImageSet
from fsslib.episodes import VOID, EpisodeStream
from fsslib.files import write_atomically
from fsslib.methods import build_method
from fsslib.methods.base import Method, TrainingDiverged
from fsslib.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from fsslib.training.evaluate import evaluate, evaluate_best, mean_loss
from fsslib.training.fit import fit
from fsslib.training.recipe import OptimizerSpec, Phase, Recipe, Schedule


class Toy(Method):
    """What later methods will need: two optimisers in one step, a bank written after it, dropout, a pointer."""

    def __init__(self):
        super().__init__()
        self.segmenter = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Dropout(0.2), nn.Conv2d(4, 2, 1))
        self.discriminator = nn.Conv2d(2, 1, 1)
        self.register_buffer("bank", torch.zeros(4, 3))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.classes = ()

    def forward(self, batch):
        return self.segmenter(batch.query_images)

    def parameter_groups(self):
        return {
            "segmenter": [{"name": "all", "params": list(self.segmenter.parameters())}],
            "discriminator": [{"name": "all", "params": list(self.discriminator.parameters()), "lr_scale": 0.5}],
        }

    def prepare(self, classes):
        self.classes = tuple(classes)

    def training_step(self, batch, optimizers):
        self.seen = batch.query_images.mean((0, 2, 3))
        logs = {}
        for name, optimizer in optimizers.items():
            logits = self(batch)
            loss = logits.square().mean() if name == "segmenter" else self.discriminator(logits.detach()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            logs[name] = loss.item()
        return logs

    def after_step(self):
        self.bank[self.pointer % 4] = self.seen
        self.pointer += 1


SGD, ADAM, ADAMW = OptimizerSpec(name="sgd", lr=0.1), OptimizerSpec(lr=0.01), OptimizerSpec(name="adamw", lr=0.02)
BOTH = {"segmenter": ADAM, "discriminator": ADAMW}
RECIPE = Recipe(
    phases=(
        Phase(name="warm", data="source", steps=4, optimizers={"segmenter": SGD}),
        Phase(name="both", data="target", steps=6, optimizers=BOTH, schedule=Schedule(name="poly", warmup=2)),
    )
)


class Altered:
    """A stream that does something at one step, the first time it is asked for it."""

    def __init__(self, stream, step, does):
        self.stream, self.step, self.does = stream, step, does

    def batch(self, step):
        batch = self.stream.batch(step)
        if step == self.step:
            self.step = None
            self.does(batch)
        return batch


def interrupted(stream, step, number=signal.SIGINT):
    return Altered(stream, step, lambda _: signal.raise_signal(number))


def toy(fold=0, size=32, batch_size=2):
    task = open_task("toy", fold=fold, targets=("night",), size=size)
    worlds = {"source": task.train, "target": task.tests["night"]}
    return {name: EpisodeStream(world, task.train_classes, batch_size=batch_size) for name, world in worlds.items()}


def learn(name, steps, data, **options):
    """A method of the library after so many steps of its own recipe, and the history."""
    torch.manual_seed(0)
    method = build_method(name)
    return method, fit(method, Recipe.load(name).with_changes(steps=steps), data, progress=False, **options)


def trained(tmp_path, stop_after=None, **options):
    """Train Toy, optionally interrupted by Ctrl-C during step `stop_after` and resumed by a fresh method."""
    data = toy(size=16)
    options = {"checkpoint": tmp_path / "last.pt", "seed": 3, "progress": False} | options
    torch.manual_seed(0)
    method = Toy()
    if stop_after is not None:
        cut = {name: interrupted(stream, stop_after) for name, stream in data.items()}
        with pytest.raises(KeyboardInterrupt, match=f"after step {stop_after + 1} of 10; it is saved"):
            fit(method, RECIPE, cut, **options)
        torch.manual_seed(99)
        method = Toy()
    history = fit(method, RECIPE, data, **options)
    return method, history


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("stop_after", [0, 3, 4, 7, 9])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stop_after):
    whole, history = trained(tmp_path / "whole")
    resumed, again = trained(tmp_path / "cut", stop_after)
    assert equal(whole.state_dict(), resumed.state_dict())
    assert history.rows == again.rows
    assert len(history.rows) == whole.pointer == 10
    assert history.earlier == 0 < again.earlier < again.seconds


@pytest.mark.parametrize("name", ["sg_one", "prototype", "rtd"])
def test_real_methods_resume_to_the_bit(tmp_path, name):
    data, path = toy(), tmp_path / "cut.pt"
    whole, _ = learn(name, 4, data)
    with pytest.raises(KeyboardInterrupt):
        learn(name, 4, data | {"source": interrupted(data["source"], 2, signal.SIGTERM)}, checkpoint=path)
    resumed, _ = learn(name, 4, data, checkpoint=path)
    assert equal(whole.state_dict(), resumed.state_dict())


def test_a_finished_run_is_not_trained_again_and_another_network_is_refused(tmp_path):
    method, history = trained(tmp_path, classes=(5, 3))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    fit(method, RECIPE, toy(size=16), checkpoint=tmp_path / "last.pt", progress=False)
    assert equal(method.state_dict(), before)
    assert [len(history.series(name)) for name in ("segmenter", "discriminator")] == [10, 6]
    assert [row["phase"] for row in history.rows] == [0] * 4 + [1] * 6
    with pytest.raises(CheckpointError, match=r"another network.* Use another output folder"):
        fit(build_method("prototype"), RECIPE, toy(), checkpoint=tmp_path / "last.pt", progress=False)


def test_a_method_is_told_its_classes_and_progress_is_lines_when_nobody_watches(capsys):
    method = Toy()
    fit(method, RECIPE, toy(size=16), classes=(5, 3), log_every=4)
    assert method.classes == (5, 3)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines] == ["step 4/10", "step 8/10", "step 10/10"]
    fit(Toy(), RECIPE, toy(size=16), progress=False)
    assert capsys.readouterr().out == ""


# Checkpoints


def test_kill_9_while_checkpointing_leaves_a_readable_file(tmp_path):
    """A process that does nothing but save is killed at many moments; what lies there must load every time."""
    path = tmp_path / "last.pt"
    program = textwrap.dedent(
        """
        import sys, torch
        from fsslib.training.checkpoint import save_checkpoint
        n = 0
        while True:
            n += 1
            save_checkpoint(sys.argv[1], {"identity": "x", "step": n, "big": torch.full((500_000,), float(n))})
            print(n, flush=True)
        """
    )
    for delay in range(4):
        process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
        for _ in range(3 + 2 * delay):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        state = load_checkpoint(path, identity="x")
        assert (state["big"] == state["step"]).all()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "damaged or cut short.*Restore"),
        (lambda path: path.write_bytes(b""), "damaged or cut short"),
        (lambda path: torch.save([1, 2], path), "not a checkpoint"),
        (lambda path: path.unlink(), "no checkpoint at"),
        (lambda path: save_checkpoint(path, {"identity": "yours"}), "another configuration.*Use another output"),
    ],
)
def test_damaged_and_foreign_checkpoints_are_refused(tmp_path, spoil, said):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"identity": "mine", "step": 1})
    assert load_checkpoint(path, identity="mine")["step"] == 1
    spoil(path)
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(path, identity="mine")


def test_files_can_be_read_by_others_than_their_writer(tmp_path):
    write_atomically(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode & 0o444 == 0o444


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(CheckpointError, match=r"Cannot write the checkpoint.* Give a folder"):
        save_checkpoint(tmp_path / "out" / "last.pt", {})


# Learning


def test_nan_stops_before_the_weights_and_says_where():
    broken = Altered(toy()["source"], 2, lambda batch: batch.query_images.fill_(float("nan")))
    torch.manual_seed(0)
    method = build_method("prototype")
    with pytest.raises(
        TrainingDiverged,
        match=r"phase 'episodes' at step 2: segmentation = nan.*Lower the learning rate.*data\['source'\].batch\(2\)",
    ):
        fit(method, Recipe.load("prototype").with_changes(steps=4), {"source": broken}, progress=False)
    assert all(torch.isfinite(p).all() for p in method.parameters())


def test_bfloat16_training_stays_in_a_band():
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        method, history = learn("prototype", 6, toy(batch_size=4), dtype=dtype)
        losses.append(history.series("segmentation"))
        assert all(p.dtype == torch.float32 for p in method.parameters())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.15)


# Recipes


def test_recipes_are_strict_and_scale():
    spec = Recipe.load("sg_one_paper").phases[0].optimizers["segmenter"]
    assert (spec.lr, spec.momentum, spec.weight_decay) == (1e-5, 0.99, 5e-4)
    assert [p.steps for p in RECIPE.with_changes(steps=5).phases] == [2, 3]
    first, second = (phase.optimizers for phase in RECIPE.with_changes(learning_rate=0.5).phases)
    assert first["segmenter"].lr == 0.5
    assert second["segmenter"].lr == pytest.approx(0.05), "a phase keeps its share of the peak"
    assert second["discriminator"] == ADAMW, "the rate of a run is the segmenter's"
    assert RECIPE.with_changes() == RECIPE
    with pytest.raises(ValueError, match="No recipe 'sg_two'"):
        Recipe.load("sg_two")
    with pytest.raises(ValueError, match="momentun"):
        OptimizerSpec(lr=0.1, momentun=0.9)
    with pytest.raises(ValueError, match="above 0"):
        RECIPE.with_changes(learning_rate=0.0)


def test_a_recipe_may_be_a_file_and_a_method_of_ones_own_learns_as_the_prototypes(tmp_path):
    (tmp_path / "mine.yaml").write_text("phases: [{name: x, steps: 3, optimizers: {segmenter: {lr: 0.1}}}]")
    assert [phase.steps for phase in Recipe.load(tmp_path / "mine.yaml").phases] == [3]
    assert Recipe.load("package.module:Mine") == Recipe.load("prototype")


def test_recipe_and_method_must_agree():
    wants = Recipe(phases=(Phase(name="x", steps=1, optimizers={"generator": SGD}),))
    with pytest.raises(ValueError, match="optimisers for generator; Toy has parameters for segmenter, discriminator"):
        fit(Toy(), wants, toy(), progress=False)
    with pytest.raises(ValueError, match="needs data named target"):
        fit(Toy(), RECIPE, {"source": toy()["source"]}, progress=False)
    spec = OptimizerSpec(lr=0.1, group_lr={"heads": 2.0})
    with pytest.raises(ValueError, match="group_lr names heads; the method's groups are all"):
        spec.build(Toy().parameter_groups()["segmenter"])


def test_learning_rates_follow_group_and_schedule():
    groups = build_method("sg_one").parameter_groups()["segmenter"]
    optimizer = Recipe.load("sg_one_paper").phases[0].optimizers["segmenter"].build(groups)
    rates = {g["name"]: g["lr"] for g in optimizer.param_groups}
    assert rates == pytest.approx({"weights": 1e-5, "biases": 2e-5, "guidance_weights": 1e-4, "guidance_biases": 2e-4})
    poly, cosine = Schedule(name="poly"), Schedule(name="cosine", warmup=4)
    assert poly.factor(0, 10) == 1
    assert poly.factor(5, 10) == pytest.approx(0.5**0.9)
    assert cosine.factor(0, 10) == pytest.approx(0.2)
    assert cosine.factor(5, 10) == pytest.approx(0.5)


# Segmenters with a fixed list of classes, and held-out images


@pytest.fixture
def streets():
    return open_task("streets", source="game", targets=("meadow",), size=32)


def segmenter(task):
    torch.manual_seed(0)
    return build_method("pixda", discriminator_width=4, select=False, **task.method_options)


def test_a_segmenter_is_scored_on_images_and_its_loss_is_a_mean_over_labelled_pixels(streets):
    method, exam = segmenter(streets), ImageSet(streets.source, streets.source_ids[:5])
    meter = evaluate(method, exam, batch_size=2)
    batch = next(exam.batches(5))
    labelled = batch.labels != VOID
    assert meter.compute().images == 5
    assert meter.confusion.sum() == labelled.sum()
    with torch.no_grad():
        logits = method.eval()(batch)
    losses = torch.nn.functional.cross_entropy(logits, batch.labels, ignore_index=VOID, reduction="none")
    assert mean_loss(method.train(), exam, batch_size=2) == pytest.approx(losses[labelled].mean().item(), rel=1e-4)
    assert method.training


def test_the_best_weights_on_held_out_images_are_kept_beside_the_last(streets, tmp_path):
    method, held_out = segmenter(streets), ImageSet(streets.source, streets.source_ids[-4:])
    recipe, data = Recipe.load("pixda").with_changes(steps=6), streets.streams(batch_size=2, shots=2)
    options = {"checkpoint": tmp_path / "c.pt", "checkpoint_every": 2, "held_out": held_out, "progress": False}
    history = fit(method, recipe, data, **options)
    last = {name: value.clone() for name, value in method.state_dict().items()}
    best = evaluate_best(method, history.best, {"game": held_out})
    assert best.step in (2, 4, 6)
    assert equal(method.state_dict(), last)
    method.load_state_dict(history.best["state"])
    assert mean_loss(method, held_out) == best.loss
    assert best.meters["game"].compute() == evaluate(method, held_out).compute()
    again = fit(segmenter(streets), recipe, data, **options)
    assert (again.best["step"], again.best["loss"]) == (best.step, best.loss)
    assert evaluate_best(method, None, {"game": held_out}) is None


@pytest.mark.parametrize("stop_after", [1, 3, 9])
def test_weights_that_are_best_where_training_was_interrupted_are_kept(streets, tmp_path, monkeypatch, stop_after):
    """At a checkpoint, the end of a phase and the last step; that the loss is lowest there is made up."""
    made_up = "fsslib.training.fit.mean_loss"
    monkeypatch.setattr(made_up, lambda method, _: abs(int(method.pointer) - stop_after - 1.0))
    held_out = ImageSet(streets.source, streets.source_ids[-4:])
    _, history = trained(tmp_path, stop_after, checkpoint_every=2, held_out=held_out)
    assert (history.best["step"], history.best["loss"]) == (stop_after + 1, 0)
