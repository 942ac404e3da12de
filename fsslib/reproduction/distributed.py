"""`torchrun --nproc-per-node N -m fsslib.reproduction.distributed FILE`: the training of one run by N processes.

FILE is a YAML file of run parameters. Each process takes its share of every batch (`fsslib.training.pieces`), on a GPU
of its own where there are GPUs. All else is as in the training notebook, but for the parameter `processes`, which is
the number of them here: another hash, another run. It leaves the checkpoint in the run's folder, and `fsslib run` with
the run's parameters then evaluates it.
"""

import os
import sys
from contextlib import nullcontext

import torch
import torch.distributed as distributed
import yaml

from fsslib.data import open_task
from fsslib.episodes import write_atomically
from fsslib.methods import build_method
from fsslib.methods.base import TrainingDiverged
from fsslib.reproduction.config import ConfigError, RunConfig, load, parse
from fsslib.reproduction.environment import choose_device
from fsslib.reproduction.run import CHECKPOINT, CONFIG, RunError, check_belongs_to, only_runner_in
from fsslib.training.checkpoint import CheckpointError
from fsslib.training.fit import fit
from fsslib.training.recipe import Recipe


def main(arguments: list[str]) -> int:
    """Train as one of the processes that torchrun started; the exit code is that of `fsslib run`."""
    if len(arguments) != 1 or "RANK" not in os.environ:
        print("Usage: torchrun --nproc-per-node 2 -m fsslib.reproduction.distributed run.yaml", file=sys.stderr)
        return 2
    first = os.environ["RANK"] == "0"
    try:
        config = parse(load(arguments[0]) | {"processes": int(os.environ["WORLD_SIZE"])})
        device = _join(choose_device(config.device))
        with only_runner_in(config.folder) if first else nullcontext():
            _train(config, device, first)
        distributed.barrier()
    except (RunError, CheckpointError, TrainingDiverged) as error:
        print(error, file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(interrupt, file=sys.stderr)
        return 130
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    if first:
        print(f"Trained. The test: fsslib run {config.folder / CONFIG}")
    return 0


def _join(device: str) -> str:
    """Meet the other processes, each on its own GPU where there are GPUs."""
    if device == "cpu":
        distributed.init_process_group("gloo")
        return device
    here, there = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if here > there:
        raise ConfigError(f"{here} processes want a GPU each, and this machine has {there}. Start fewer of them.")
    # By number: a thread that makes batches would take "cuda" for the first one.
    device = f"cuda:{os.environ['LOCAL_RANK']}"
    torch.cuda.set_device(device)
    distributed.init_process_group("nccl", device_id=torch.device(device))
    return device


def _train(config: RunConfig, device: str, first: bool) -> None:
    if first:
        config.folder.mkdir(parents=True, exist_ok=True)
        check_belongs_to(config.folder, config)
        stated = config.model_dump(mode="json", exclude={"output"})
        write_atomically(config.folder / CONFIG, yaml.safe_dump(stated, sort_keys=False))
    task = open_task(
        config.data,
        fold=config.fold,
        source=config.source,
        targets=config.targets,
        size=config.image_size,
        device=device,
    )
    torch.manual_seed(config.seed)
    options = {**task.method_options, **config.method_options}
    recipe = Recipe.load(config.recipe or config.method)
    fit(
        build_method(config.method, backbone=config.backbone, weights=config.start_weights, **options),
        recipe.with_changes(steps=config.steps, learning_rate=config.learning_rate),
        task.streams(batch_size=config.batch_size, ways=config.ways, shots=config.shots, seed=config.seed),
        classes=task.train_classes,
        device=device,
        dtype=getattr(torch, config.dtype),
        accumulate=config.accumulate,
        processes=config.processes,
        compile=config.compile,
        seed=config.seed,
        checkpoint=config.folder / CHECKPOINT,
        checkpoint_every=config.checkpoint_every,
        identity=config.sha256,
        held_out=task.held_out,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
