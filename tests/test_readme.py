"""What README and docs/ tell people to type: commands, the YAML file, the Python lines, and links. About 3 s."""

import re
import shlex
from pathlib import Path

import pytest

from fsslib import cli
from fsslib.data.benchmarks import frozen
from fsslib.reproduction import run as runner
from tests.data.trees import draw_voc

ROOT = Path(__file__).resolve().parents[1]
README, DATA = ((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/data.md"))


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_every_run_command_is_accepted(monkeypatch, tmp_path):
    calls = []

    def record(config, **_):
        calls.append(config)
        path = tmp_path / "result.json"
        path.write_text('{"schema_version": 1, "scores": {}}')
        return path

    monkeypatch.setattr(runner, "run", record)
    (tmp_path / "my_run.yaml").write_text(blocks("yaml")[0])
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("fsslib run")]
    assert len(lines) >= 4
    for line in lines:
        assert cli.main(shlex.split(line, comments=True)[1:]) == 0, line
    assert len(calls) == len(lines)
    from_file = [config for config in calls if config.fold == 2]
    assert [(c.seed, c.targets, c.learning_rate) for c in from_file] == [(1, ("night", "sketch"), 1e-3)]


def test_every_other_command_exists(capsys):
    commands = set(re.findall(r"`?fsslib (\w+)", "\n".join([*blocks("bash"), *re.findall(r"`fsslib [^`]+`", README)])))
    assert {"tutorial", "run", "doctor", "data", "reproduce"} <= commands
    assert cli.main(["--help"]) == 0
    offered = re.search(r"\{([\w,]+)\}", capsys.readouterr().out)[1].split(",")
    assert commands <= set(offered)
    makes = set(re.findall(r"make (tutorial|test|bench|gpu|lab|notebooks|reproduce|clean)\b", README))
    make_file = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in makes if not re.search(rf"^{target}:", make_file, re.MULTILINE)] == []


def test_the_python_lines_run(capsys):
    (code,) = blocks("python")
    assert 'fss.Recipe.load("sg_one")' in code
    short = (('fss.Recipe.load("sg_one")', 'fss.Recipe.load("sg_one").with_changes(steps=2)'), ("200", "10"))
    for long, few in short:
        code = code.replace(long, few)
    exec(compile(code, "README.md", "exec"), {})
    assert 0 <= float(capsys.readouterr().out.splitlines()[-1]) <= 1


def test_the_lines_about_frozen_episodes_run(tmp_path, monkeypatch):
    row = frozen("pascal", "hsnet", shots=1, fold=1).rows[0]
    draw_voc(tmp_path, dict.fromkeys((row.query, *row.supports[0]), row.classes), "val")
    monkeypatch.setenv("FSSLIB_DATA", str(tmp_path))
    (code,) = blocks("python", DATA)
    exec(compile(code, "README.md", "exec"), namespace := {})
    (episode,) = namespace["exam"].batches(1)
    assert episode.class_ids.tolist() == [list(row.classes)]
    assert episode.query_labels.any()


PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_file_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    for target in targets:
        file, _, heading = target.partition("#")
        linked = (ROOT / page).parent / file if file else ROOT / page
        assert linked.exists(), target
        if heading:
            assert heading in headings(linked), target
    assert targets or page != "README.md"


def headings(page: Path) -> list[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
