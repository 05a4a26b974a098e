"""``assess`` by real processes: each reads its share, all return the assessment of one, and no failure makes others wait."""

import pytest
import torch
from assessment_script import COUNT, as_tensors, assessed, images
from conftest import by_rank

from attacker_metrics.reading.strongest.distributed import share, together


@pytest.fixture(scope="module")
def ranks(three_processes):
    return by_rank(three_processes[0] / "assessment_script", 2)


@pytest.fixture(scope="module")
def alone():
    read = []
    found = as_tensors(assessed(lambda i: (read.append(i), images(i))[1]))
    return {**found, "read": len(read)}


def test_every_process_returns_the_assessment_of_one(ranks, alone):
    for rank in ranks:
        found = rank["found"]
        assert (found["ids"], found["winner"]) == (alone["ids"], alone["winner"])
        for table in ("scores", "null"):
            assert list(found[table]) == list(alone[table])
            for name, values in alone[table].items():
                torch.testing.assert_close(found[table][name], values, rtol=0, atol=1e-6, equal_nan=True)
                same = ranks[0]["found"][table][name]
                torch.testing.assert_close(found[table][name], same, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(found["p_value"], alone["p_value"], rtol=0, atol=1e-12, equal_nan=True)
        for anchor in ("ceiling", "equal_noise"):
            assert found[anchor] == pytest.approx(alone[anchor], abs=1e-6)
    assert alone["p_value"].isnan().sum() == 1


def test_each_process_reads_its_share(ranks, alone):
    assert sum(rank["read"] for rank in ranks) <= alone["read"] + COUNT  # a picture may be read where a share ends, too
    assert max(rank["read"] for rank in ranks) < 0.6 * alone["read"]


def test_an_error_of_one_process_is_raised_on_all(ranks):
    assert ranks[1]["broken"].startswith("OSError: picture")
    assert ranks[0]["broken"].startswith("RuntimeError: process 1 failed: OSError: picture")


def test_processes_that_were_called_for_different_things_are_told(ranks):
    for rank in ranks:
        assert "processes 0 and 1 assess different things" in rank["different"]


def test_one_process_has_everything_and_raises_its_own_errors():
    assert share(7) == range(7)
    assert together(lambda: 3) == [3]
    with pytest.raises(ZeroDivisionError):
        together(lambda: 1 / 0)
