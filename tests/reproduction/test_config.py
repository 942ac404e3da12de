"""Parameters of a run: strict inside, text read by type at the boundary, errors that name what there is. About 1 s."""

import hashlib
import inspect
import json
from dataclasses import replace

import pytest
from pydantic import ValidationError

from fsslib import paths
from fsslib.blocks.backbones import BACKBONES
from fsslib.data import DATA_SETS, openers, toyworld, worlds
from fsslib.methods import METHODS
from fsslib.metrics import PROTOCOLS
from fsslib.reproduction.config import ConfigError, RunConfig, load, parse

PIXDA = {"data": "streets", "method": "pixda"}


def test_the_defaults_exist():
    config = RunConfig()
    assert (config.method in METHODS, config.backbone in BACKBONES, config.protocol in PROTOCOLS) == (True,) * 3
    assert config.source == toyworld.SOURCE_DOMAIN
    assert config.targets == toyworld.TARGET_DOMAINS == DATA_SETS["toy"].default_targets
    assert DATA_SETS["toy"].sources == DATA_SETS["toy"].targets == tuple(toyworld.DOMAINS)
    assert DATA_SETS["toy"].folds == (*toyworld.TEST_FOLDS, toyworld.DEVELOPMENT_FOLD)
    modules = {"openers": openers, "worlds": worlds}
    opened_by = {
        name: getattr(modules[facts.opener.partition(":")[0]], facts.opener.partition(":")[2] or name, None)
        for name, facts in DATA_SETS.items()
    }
    assert [name for name, opener in opened_by.items() if not inspect.isfunction(opener)] == []


# What is refused, and what is said of it.
REFUSED = [
    ({"method": "sg_two"}, "unknown method 'sg_two'", *METHODS),
    ({"backbone": "resnet19"}, "unknown backbone 'resnet19'", *BACKBONES),
    ({"protocol": "hsnett"}, "unknown protocol 'hsnett'", *PROTOCOLS),
    ({"data": "imagenet"}, "unknown data 'imagenet'", *DATA_SETS),
    ({"fold": 5}, "unknown fold 5 of toy", "0, 1, 2, 3, 4"),
    ({"data": "pascal", "fold": 4}, "unknown fold 4 of pascal", "0, 1, 2, 3"),
    ({"source": "photos"}, "unknown domain 'photos' of toy", *toyworld.DOMAINS),
    ({"targets": ["nite"]}, "unknown domain 'nite'", *toyworld.DOMAINS),
    ({"data": "pascal", "targets": ["night"]}, "unknown domain 'night' of pascal"),
    ({"device": "gpu"}, "device", "'auto', 'cpu' or 'cuda'", "'gpu'"),
    ({"dtype": "float16"}, "dtype", "'float32' or 'bfloat16'"),
    ({"metod": "sg_one"}, "'metod' is no parameter of a run; did you mean 'method'?"),
    ({"shots": -1}, "shots: Input should be greater than or equal to 0; found -1"),
    ({"shots": 0}, "an episode of toy shows at least one example; found shots 0"),
    ({"learning_rate": float("nan")}, "finite number"),
    ({"targets": ["night", "night"]}, "must differ"),
    ({"targets": ["photo"]}, "every run is tested in its source"),
    ({"targets": "night"}, "a list of names is wanted, such as [night, sketch]; found 'night'"),
    ({"method_options": {"width": [1]}}, "an option is a number, true or false, or text; found [1]"),
    ({"batch_size": 8, "accumulate": 3}, "batch_size 8 does not fall into 3 equal pieces"),
    ({"data": "streets"}, "streets needs a domain adaptation method, found 'sg_one'; there are pixda"),
    ({"method": "pixda"}, "toy needs a few-shot method, found 'pixda'; there are prototype, sg_one, panet, "),
    (PIXDA | {"ways": 2}, "one target and no ways; found targets cities and ways 2"),
    (PIXDA | {"targets": ["cities", "meadow"]}, "found targets cities, meadow"),
    (PIXDA | {"draw": 1}, "streets has fixed test images and nothing to draw"),
    (PIXDA | {"source": "photo"}, "unknown domain 'photo' of streets"),
    ({"data": "pascal", "protocol": "hsnet", "draw": 2}, "protocol hsnet has fixed test episodes"),
    ({"data": "pascal", "protocol": "pfenet", "draw": 2}, "protocol pfenet has fixed test episodes"),
    ({"data": "pascal_all", "steps": 1}, "leaves no class to train on, found steps 1; give steps 0"),
    # Text that is not what is wanted.
    ({"fold": "true"}, "fold: Input should be a valid integer; found 'true'"),
    ({"learning_rate": "nan"}, "learning_rate"),
    ({"steps": "none"}, "steps"),
    ({"fold": "one", "steps": "many"}, "fold: ", "\nsteps: ", "found 'many'"),
]


@pytest.mark.parametrize(("values", "said"), [(values, said) for values, *said in REFUSED])
def test_what_cannot_be_is_refused_with_what_there_is(values, said):
    with pytest.raises(ConfigError) as caught:
        parse(values)
    assert [text for text in said if text not in str(caught.value)] == []


@pytest.mark.parametrize(
    "values",
    [
        {"fold": "1"},
        {"fold": True},
        {"learning_rate": "1e-3"},
        {"method_options": {"width": float("inf")}},
        {"metod": "sg_one"},
    ],
)
def test_inside_no_value_changes_its_type_or_name(values):
    with pytest.raises(ValidationError, match="did you mean 'method'" if "metod" in values else "RunConfig"):
        RunConfig(**values)
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().fold = 1


def test_values_from_yaml_arrive_as_what_they_are(tmp_path):
    file = tmp_path / "run.yaml"
    # YAML 1.1 reads 1e-3 as text, 1.0e-3 as a number; quoted values are text.
    file.write_text(
        "learning_rate: 1e-3\nfold: '2'\nsteps: 12\ntargets: [night]\ncompile: 'True'\n"
        "method_options: {a: false, b: 'true', c: 1e-3, d: 1.0e-3, e: '7', f: union, g: none}\n"
    )
    config = parse(load(file))
    assert config.learning_rate == 0.001
    assert (config.fold, config.steps, config.targets, config.compile) == (2, 12, ("night",), True)
    options = config.method_options
    assert options == {"a": False, "b": True, "c": 0.001, "d": 0.001, "e": 7, "f": "union", "g": "none"}
    assert [type(v) for v in options.values()] == [bool, bool, float, float, int, str, str]


@pytest.mark.parametrize("text", ["none", "None", "NONE"])
def test_none_is_none_only_where_there_may_be_none(text):
    config = parse({"learning_rate": text, "weights": text})
    assert (config.learning_rate, config.weights) == (None, text)


def test_what_came_later_leaves_earlier_hashes_alone(monkeypatch):
    later = {"recipe", "draw", "accumulate", "compile", "source_parts", "target_parts", "keep_features"}
    earlier = RunConfig().model_dump(mode="json", exclude={"output", "device", *later})
    content = json.dumps(earlier, sort_keys=True, separators=(",", ":"))
    assert RunConfig().sha256 == hashlib.sha256(content.encode()).hexdigest()
    changes = ({"recipe": "sg_one"}, {"draw": 1}, {"accumulate": 2}, {"compile": True}, {"keep_features": True})
    assert len({RunConfig().sha256, *(RunConfig(**change).sha256 for change in changes)}) == 6
    coco = {"data": "coco", "targets": ()}
    parts = ({}, {"source_parts": 2}, {"target_parts": 2})
    assert len({RunConfig(**coco, **change).sha256 for change in parts}) == 3

    # A protocol with another rule than before is another run.
    def hash_under(name: str, rule: int) -> str:
        monkeypatch.setitem(PROTOCOLS, name, replace(PROTOCOLS[name], rule=rule))
        return RunConfig(protocol=name).sha256

    asked = {name: RunConfig(protocol=name).sha256 for name in PROTOCOLS}
    changed = {name for name, sha256 in asked.items() if sha256 != hash_under(name, 1)}
    assert changed == {"hsnet"}, "its truth became the release's own"
    assert len({hash_under("toy", rule) for rule in (1, 2, 3)}) == 3


def test_a_data_set_without_source_or_targets_named_brings_its_own():
    assert [(c.source, c.targets) for c in map(parse, (PIXDA, {"data": "pascal"}, {"data": "toy"}))] == [
        ("game", ("cities",)),
        ("photo", ()),
        ("photo", toyworld.TARGET_DOMAINS),
    ]
    assert parse({"data": "toy", "targets": []}).targets == ()


@pytest.mark.parametrize("content", ["- a\n- b\n", "", "a: [", "1: 2", None])
def test_a_file_that_is_no_mapping_is_refused_and_a_missing_one_named(tmp_path, content):
    said = {"a: [": "is not YAML", None: "cannot be read"}.get(content, "should hold lines such as 'method: sg_one'")
    if content is not None:
        (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(ConfigError, match=rf"run\.yaml {said}"):
        load(tmp_path / "run.yaml")


def test_the_names_that_a_config_gives(monkeypatch, tmp_path):
    """The id stands for what can change a number, the seed of the test for its questions alone."""
    monkeypatch.chdir(tmp_path)
    config, root = RunConfig(), paths.project_root()
    assert config.run_id == f"toy-sg_one-tiny-fold0-1way1shot-seed0-{config.sha256[:8]}"
    assert RunConfig(output="elsewhere", device="cpu").run_id == config.run_id
    changed = {"fold": 1, "steps": 401, "dtype": "bfloat16", "targets": (), "method_options": {"width": 64}, "seed": 1}
    hashes = {config.sha256, *(RunConfig(**{name: value}).sha256 for name, value in changed.items())}
    assert len(hashes) == len(changed) + 1
    assert config.folder == root / "runs" / config.run_id
    assert RunConfig(output="runs/mine").folder == root / "runs" / "mine"
    assert RunConfig(output=str(tmp_path)).folder == tmp_path
    assert RunConfig(fold=2, shots=5).test_seed == "test-toy-fold2-1way-5shot"
    assert RunConfig(seed=3, steps=9, batch_size=2).test_seed == RunConfig().test_seed
    assert RunConfig(draw=2).test_seed == "test-toy-fold0-1way-1shot-draw2"
    starts = ({}, {"fold": 3}, {"backbone": "resnet18"}, {"weights": "imagenet"})
    named = ["tiny-toy-fold0.pt", "tiny-toy-fold3.pt", "none", "imagenet"]
    assert [RunConfig(**values).start_weights for values in starts] == named
