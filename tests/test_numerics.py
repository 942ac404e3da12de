"""`make numerics` on a file of three tests: rows compute otherwise, are counted, kept and gone on from. About 20 s."""

import json

import pytest

from tests import numerics

TESTS = """
import pytest, torch
def test_passes(): assert torch.backends.mkldnn.enabled == {enabled}
def test_fails(): assert False
def test_is_skipped(): pytest.skip("a reason")
"""


@pytest.mark.slow
def test_rows_are_other_arithmetics_and_an_interrupted_run_goes_on(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(numerics, "RESULTS", tmp_path / "numerics.json")
    monkeypatch.setattr(numerics, "code_state", lambda: "first")
    monkeypatch.delenv("PYTHONPATH", raising=False)  # this test may be running under "no oneDNN" itself
    file = tmp_path / "test_three.py"
    outside = [str(file), "-c", "/dev/null", "-p", "no:cacheprovider"]
    for name, enabled in (("own", True), ("no oneDNN", False)):
        file.write_text(TESTS.format(enabled=enabled))
        assert numerics.main(["--only", name, "--", *outside]) == 1
    own, without = json.loads(numerics.RESULTS.read_text())["rows"]
    assert len(numerics.RESULTS.read_text().splitlines()) == 2 + 2, "a line each"
    for row in (own, without):
        assert (row["passed"], row["failed"], row["skipped"]) == (1, 1, 1)
        assert row["failing"] == ["test_three::test_fails"]
    assert without["shows"].split(", ")[1] == "no oneDNN"
    assert own["shows"].split(", ")[-1] != without["shows"].split(", ")[-1], "the last digits"

    capfd.readouterr()
    file.unlink()
    assert numerics.main(["--only", "own", "--only", "no oneDNN", "--", *outside]) == 1, "no test is run again"
    printed = capfd.readouterr().out.splitlines()
    assert printed[0].split()[:5] == ["arithmetic", "torch", "passed", "failed", "skipped"]
    assert [line.split()[-1] for line in printed[1:]] == [
        own["shows"].split()[-1], "test_three::test_fails", without["shows"].split()[-1], "test_three::test_fails"
    ]  # fmt: skip
    monkeypatch.setattr(numerics, "code_state", lambda: "second")
    with pytest.raises(SystemExit, match=r"pytest ended with . under 'own'"):
        numerics.main(["--only", "own", "--", *outside])


def test_another_torch_wants_its_interpreter(capsys):
    with pytest.raises(SystemExit):
        numerics.main(["--only", "another torch"])
    assert "wants --python" in capsys.readouterr().err
