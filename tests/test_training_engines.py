"""The collection under Lightning and Accelerate, in two real processes with unequal shares."""

import pytest
import torch
from conftest import NAMES, by_rank

ALL = (*NAMES, "own")


@pytest.fixture(scope="module")
def ranks(request):
    for engine in ("accelerate", "lightning"):
        pytest.importorskip(engine, reason=f"needs {engine}")
    folder, _ = request.getfixturevalue("three_processes")
    return by_rank(folder / "engines_script", 2)


@pytest.fixture(scope="module")
def wanted():
    from engines_script import PICTURES, hidden, make

    metric = make()
    metric.update(hidden(PICTURES), PICTURES)
    return metric.compute()


def assert_close(values, wanted):
    for name in ALL:
        torch.testing.assert_close(values[name].detach(), wanted[name], rtol=0, atol=1e-6)


def test_accelerate_returns_the_numbers_of_one_process_in_one_collective(ranks, wanted):
    assert [rank["accelerate"]["sizes"] for rank in ranks] == [[2, 2], [2]]
    for rank in ranks:
        assert rank["accelerate"]["collectives"] == {"c10d::allgather_": 1}
        assert_close(rank["accelerate"]["values"], wanted)
        assert all(torch.equal(rank["accelerate"]["values"][name], ranks[0]["accelerate"]["values"][name]) for name in ALL)


@pytest.mark.parametrize(
    ("logged", "key"),
    [
        ("log_dict(collection, on_step=True, on_epoch=True)", "steps/{}_epoch"),
        ("log_dict(collection)", "members/{}"),
        ("log_dict(collection.compute())", "whole/{}"),
    ],
)
def test_lightning_logs_the_numbers_of_one_process(ranks, wanted, logged, key):
    for rank in ranks:
        assert_close({name: rank["lightning"]["logged"][key.format(name)] for name in ALL}, wanted)


def test_lightning_logs_each_steps_own_values_and_resets_every_epoch(ranks):
    from engines_script import hidden, make

    for rank in ranks:
        steps = rank["lightning"]["seen"]
        assert [step["updates"] for step in steps] == [[(update, None)] * len(ALL) for update in (1, 2, 1, 2)]
        for step in steps:
            alone = make()
            alone.update(hidden(step["clean"]), step["clean"])
            assert_close({name: step["returned"][f"steps/{name}"] for name in ALL}, alone.compute())
            assert_close({name: step["logged"][f"steps/{name}_step"] for name in ALL}, alone.compute())


def test_logging_what_compute_returned_is_one_collective_an_epoch(ranks):
    for rank in ranks:
        assert rank["lightning"]["collectives"] == [{"c10d::allgather_": 1}] * 2
