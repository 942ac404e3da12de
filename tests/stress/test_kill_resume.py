"""The short form of kill_resume.py: one method, two kills on the way to 120 steps. About 40 s."""

import pytest
import torch

from fsslib.reproduction.config import RunConfig
from tests.stress import kill_resume

SMALL = RunConfig(method="sg_one", image_size=32, batch_size=2, steps=120, checkpoint_every=1, episodes=8, targets=())


@pytest.mark.slow
def test_a_run_that_was_killed_twice_ends_as_the_one_left_alone(tmp_path):
    found = kill_resume.compare(SMALL, tmp_path, 2)
    assert found["kills_on_the_way"] == 2
    first, second = found["steps_saved_at_kills"]
    assert 0 < first < second
    assert found["differs_in"] == []


def test_a_difference_is_seen():
    """Else two runs that differ would pass for equal."""
    one, other = ({"a": [torch.zeros(2), 1.0]} for _ in range(2))
    assert kill_resume.same(one, other)
    other["a"][0][1] = 1e-30
    assert not kill_resume.same(one, other)
    assert not kill_resume.same({"a": 1}, {"b": 1})
    assert not kill_resume.same([1], [1, 2])
