"""How many actors of how many cores the scoring pipeline gets."""

import pytest

from jobs.scoring.execution.placement import cpu_placement


@pytest.mark.parametrize(
    ("cpus", "actors", "actor_cpus", "expected"),
    [
        pytest.param([2], None, None, (1, 1, 2), id="one for a small machine"),
        pytest.param([16, 16], None, None, (1, 4, 8), id="one for each eight cores"),
        pytest.param([2], (2, 2), None, (2, 2, 1), id="as many as asked for share the cores"),
        pytest.param([16], (3, 3), None, (3, 3, 5), id="and leave what does not divide"),
        pytest.param([4, 2], (3, 5), None, (3, 5, 2), id="on nodes of different sizes"),
        pytest.param([1], (2, 2), None, (1, 2, 1), id="those that do not fit wait for the cluster to grow"),
        pytest.param([2], (1, 2), None, (1, 2, 2), id="only the least number must fit"),
        pytest.param([4], (2, 2), 1, (2, 2, 1), id="cores as asked for"),
        pytest.param([0.5], None, None, (1, 1, 0.5), id="a node of half a core"),
    ],
)
def test_actors_and_their_cores(cpus, actors, actor_cpus, expected):
    shape = cpu_placement(cpus, actors, actor_cpus)
    assert (shape.min_actors, shape.max_actors, shape.actor_cpus) == expected
