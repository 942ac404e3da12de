"""Parameters of a run: strict inside, text read by type at the boundary, errors that name what there is. About 1 s."""

import hashlib
import inspect
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fsslib import paths
from fsslib.blocks.backbones import BACKBONES
from fsslib.data import DATA_SETS, openers, toyworld
from fsslib.methods import METHODS
from fsslib.metrics import PROTOCOLS
from fsslib.reproduction.config import ConfigError, RunConfig, load, parse


def error_of(values: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(values)
    return str(caught.value)


def test_the_defaults_exist():
    config = RunConfig()
    assert config.method in METHODS
    assert config.backbone in BACKBONES
    assert config.protocol in PROTOCOLS
    assert config.data in DATA_SETS
    assert config.source == toyworld.SOURCE_DOMAIN
    assert config.targets == toyworld.TARGET_DOMAINS == DATA_SETS["toy"].default_targets
    assert DATA_SETS["toy"].sources == DATA_SETS["toy"].targets == tuple(toyworld.DOMAINS)
    assert DATA_SETS["toy"].folds == (*toyworld.TEST_FOLDS, toyworld.DEVELOPMENT_FOLD)
    assert [name for name in DATA_SETS if not inspect.isfunction(getattr(openers, name, None))] == []


@pytest.mark.parametrize(
    ("values", "known"),
    [
        ({"method": "sg_two"}, ["unknown method 'sg_two'", *METHODS]),
        ({"backbone": "resnet19"}, ["unknown backbone 'resnet19'", *BACKBONES]),
        ({"protocol": "hsnett"}, ["unknown protocol 'hsnett'", *PROTOCOLS]),
        ({"data": "imagenet"}, ["unknown data 'imagenet'", *DATA_SETS]),
        ({"fold": 5}, ["unknown fold 5 of toy", "0, 1, 2, 3, 4"]),
        ({"data": "pascal", "fold": 4}, ["unknown fold 4 of pascal", "0, 1, 2, 3"]),
        ({"source": "photos"}, ["unknown domain 'photos' of toy", *toyworld.DOMAINS]),
        ({"targets": ["nite"]}, ["unknown domain 'nite'", *toyworld.DOMAINS]),
        ({"device": "gpu"}, ["device", "'auto', 'cpu' or 'cuda'", "'gpu'"]),
        ({"dtype": "float16"}, ["dtype", "'float32' or 'bfloat16'"]),
    ],
)
def test_an_unknown_name_is_refused_with_the_names_there_are(values, known):
    message = error_of(values)
    for text in known:
        assert text in message


def test_a_misspelt_parameter_is_refused_with_the_one_that_was_meant():
    assert "'metod' is no parameter of a run; did you mean 'method'?" in error_of({"metod": "sg_one"})
    assert "did you mean 'learning_rate'" in error_of({"learningrate": 0.1})
    assert error_of({"zzz": 1}) == "'zzz' is no parameter of a run"
    with pytest.raises(ValidationError, match="did you mean 'method'"):
        RunConfig(metod="sg_one")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"shots": 0}, "shots: Input should be greater than or equal to 1; found 0"),
        ({"steps": -1}, "steps"),
        ({"image_size": 8}, "image_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "finite number"),
        ({"seed": 2**31}, "seed"),
        ({"targets": ["night", "night"]}, "must differ"),
        ({"targets": ["photo"]}, "every run is tested in its source"),
        ({"batch_size": 8, "accumulate": 3}, "batch_size 8 does not fall into 3 equal pieces"),
    ],
)
def test_values_out_of_range_are_refused(values, reason):
    assert reason in error_of(values)


@pytest.mark.parametrize(
    "values",
    [
        {"fold": "1"},
        {"fold": True},
        {"fold": 1.0},
        {"learning_rate": "1e-3"},
        {"targets": "night"},
        {"method_options": {"width": [1]}},
        {"method_options": {"width": float("inf")}},
        {"output": None},
        {"steps": None},
    ],
)
def test_inside_no_value_changes_its_type(values):
    with pytest.raises(ValidationError):
        RunConfig(**values)


def test_every_wrong_value_is_named_at_once():
    message = error_of({"fold": "one", "steps": "many"})
    assert message.count("\n") == 1
    assert "fold: " in message
    assert "steps: " in message
    assert "found 'many'" in message


def test_values_from_yaml_arrive_as_what_they_are(tmp_path):
    file = tmp_path / "run.yaml"
    # YAML 1.1 reads 1e-3 as text, 1.0e-3 as a number; quoted values are text.
    file.write_text(
        "learning_rate: 1e-3\nfold: '2'\nsteps: 12\ntargets: [night]\n"
        "method_options: {a: false, b: 'true', c: 1e-3, d: 1.0e-3, e: '7', f: union}\n"
    )
    config = parse(load(file))
    assert config.learning_rate == 0.001
    assert (config.fold, config.steps, config.targets) == (2, 12, ("night",))
    options = config.method_options
    assert options == {"a": False, "b": True, "c": 0.001, "d": 0.001, "e": 7, "f": "union"}
    assert [type(v) for v in options.values()] == [bool, bool, float, float, int, str]


@pytest.mark.parametrize("text", ["none", "None", "NONE"])
def test_none_is_none_only_where_there_may_be_none(text):
    assert parse({"learning_rate": text}).learning_rate is None
    assert parse({"weights": text}).weights == text
    assert "steps" in error_of({"steps": text})


def test_text_that_is_no_number_is_refused():
    for values in ({"fold": "true"}, {"fold": "1.5"}, {"learning_rate": "fast"}, {"learning_rate": "nan"}):
        assert next(iter(values)) in error_of(values)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"data": "streets"}, "streets needs a domain adaptation method, found 'sg_one'; there are pixda"),
        ({"method": "pixda"}, "toy needs a few-shot method, found 'pixda'; there are prototype, sg_one, panet, "),
        ({"data": "streets", "method": "pixda", "ways": 2}, "one target and no ways; found targets cities and ways 2"),
        ({"data": "streets", "method": "pixda", "targets": ["cities", "meadow"]}, "found targets cities, meadow"),
        ({"data": "streets", "method": "pixda", "draw": 1}, "streets has fixed test images and nothing to draw"),
        ({"data": "pascal", "protocol": "hsnet", "draw": 2}, "protocol hsnet has fixed test episodes"),
        ({"data": "pascal", "protocol": "pfenet", "draw": 2}, "protocol pfenet has fixed test episodes"),
        (
            {"data": "streets", "method": "pixda", "source": "photo"},
            "unknown domain 'photo' of streets",
        ),
    ],
)
def test_data_method_and_test_must_be_of_one_kind(values, reason):
    assert reason in error_of(values)


def test_a_parameter_that_came_later_leaves_earlier_hashes_alone():
    later = {"recipe", "draw", "accumulate", "compile"}
    earlier = RunConfig().model_dump(mode="json", exclude={"output", "device", *later})
    content = json.dumps(earlier, sort_keys=True, separators=(",", ":"))
    assert RunConfig().sha256 == hashlib.sha256(content.encode()).hexdigest()
    changes = ({"recipe": "sg_one"}, {"draw": 1}, {"accumulate": 2}, {"compile": True})
    assert len({RunConfig().sha256, *(RunConfig(**change).sha256 for change in changes)}) == 5


def test_a_protocol_with_another_rule_than_before_is_another_run(monkeypatch):
    def hash_under(name: str, rule: int) -> str:
        monkeypatch.setitem(PROTOCOLS, name, replace(PROTOCOLS[name], rule=rule))
        return RunConfig(protocol=name).sha256

    asked = {name: RunConfig(protocol=name).sha256 for name in PROTOCOLS}
    changed = {name for name, sha256 in asked.items() if sha256 != hash_under(name, 1)}
    assert changed == {"hsnet"}, "its truth became the release's own"
    assert len({hash_under("toy", rule) for rule in (1, 2, 3)}) == 3


def test_a_data_set_without_source_or_targets_named_brings_its_own():
    streets = parse({"data": "streets", "method": "pixda"})
    assert (streets.source, streets.targets) == ("game", ("cities",))
    assert parse({"data": "pascal"}).targets == ()
    assert parse({"data": "toy"}).targets == toyworld.TARGET_DOMAINS
    assert parse({"data": "toy", "targets": []}).targets == ()
    assert "unknown domain 'night' of pascal" in error_of({"data": "pascal", "targets": ["night"]})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("- a\n- b\n", "should hold lines such as"),
        ("", "should hold lines"),
        ("a: [", "is not YAML"),
        ("1: 2", "lines"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, reason):
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(ConfigError, match=reason):
        load(tmp_path / "run.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"run\.yaml cannot be read"):
        load(tmp_path / "run.yaml")


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().fold = 1


def test_the_run_id_stands_for_what_can_change_a_number():
    config = RunConfig()
    assert config.run_id == f"toy-sg_one-tiny-fold0-1way1shot-seed0-{config.sha256[:8]}"
    assert RunConfig(output="elsewhere", device="cpu").run_id == config.run_id
    changed = {"fold": 1, "steps": 401, "dtype": "bfloat16", "targets": (), "method_options": {"width": 64}, "seed": 1}
    hashes = {config.sha256, *(RunConfig(**{name: value}).sha256 for name, value in changed.items())}
    assert len(hashes) == len(changed) + 1


@settings(deadline=None, max_examples=40)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "fold": st.integers(0, 4),
            "learning_rate": st.none() | st.floats(1e-9, 10),
            "targets": st.lists(st.sampled_from(toyworld.TARGET_DOMAINS), unique=True),
            "method_options": st.dictionaries(
                st.text("abc", min_size=1), st.booleans() | st.integers() | st.floats(0, 1)
            ),
            "seed": st.integers(0, 2**31 - 1),
        },
    )
)
def test_a_config_survives_json_and_its_text(values):
    config = parse(values)
    assert RunConfig(**json.loads(json.dumps(config.model_dump(mode="json")))) == config
    as_text = {name: str(value) if isinstance(value, int | float) else value for name, value in values.items()}
    assert parse(as_text).sha256 == config.sha256


def test_the_folder_is_below_the_project_wherever_python_started(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    root = paths.project_root()
    assert RunConfig().folder == root / "runs" / RunConfig().run_id
    assert RunConfig(output="runs/mine").folder == root / "runs" / "mine"
    assert RunConfig(output=str(tmp_path)).folder == tmp_path


def test_the_test_episodes_do_not_depend_on_method_or_seed():
    assert RunConfig(fold=2, shots=5).test_seed == "test-toy-fold2-1way-5shot"
    assert RunConfig(seed=3, steps=9, batch_size=2).test_seed == RunConfig().test_seed
    assert RunConfig(draw=2).test_seed == "test-toy-fold0-1way-1shot-draw2"


def test_the_json_schema_describes_every_parameter_and_allows_no_other():
    schema = RunConfig.model_json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(RunConfig.model_fields)
    assert all(field["description"] for field in schema["properties"].values())
