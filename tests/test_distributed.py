"""Real processes: uneven shares, an empty rank, the numbers of one process, every collective counted."""

import pytest
import torch
from conftest import by_rank
from distributed_script import SHARES, SIZES, extras, make, updated
from two_hosts import ADDRESSES

MEMBERS = 17
ONE = {"c10d::allgather_": 1}
ALL = range(len(SIZES))
SEEN, SKIPPED = 5, 1
"""Images in the mean and pairs left out, over all batches."""


@pytest.fixture(scope="module")
def groups(three_processes):
    """What each of three processes saw, by the size of the group; they run on two hosts, where the machine allows it."""
    return by_rank(three_processes[0] / "distributed_script", max(SHARES))


@pytest.fixture(scope="module", params=SHARES)
def ranks(request, groups):
    """What each of 1, 2 and 3 processes saw."""
    return [seen[request.param] for seen in groups[: request.param]]


@pytest.fixture(scope="module")
def whole():
    return updated(make(extra=extras()), ALL).compute()


def assert_numbers(found, wanted):
    """Equal bits on every rank, and one process's numbers."""
    for values in found:
        assert list(values) == [name for name in wanted if name in values]
        for name, value in values.items():
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-7)
            assert torch.equal(value, found[0][name])


def of(ranks, scenario, *path):
    found = [rank[scenario] for rank in ranks]
    for step in path:
        found = [outcome[step] for outcome in found]
    return found


def test_compute_is_one_collective_and_returns_the_numbers_of_one_process(ranks, whole):
    assert of(ranks, "compute", "collectives") == [ONE] * len(ranks)
    for values in ("values", "again"):
        assert [len(rank) for rank in of(ranks, "compute", values)] == [MEMBERS] * len(ranks)
        assert_numbers(of(ranks, "compute", values), whole)


@pytest.mark.parametrize("ranks", [max(SHARES)], indirect=True)
def test_two_hosts_compute_in_one_collective(ranks, three_processes, whole):
    if not three_processes[1]:
        pytest.skip("this machine allows no network namespaces: all processes ran on one host")
    assert {rank["address"] for rank in ranks} == set(ADDRESSES)
    assert of(ranks, "compute", "collectives") == [ONE] * len(ranks)
    assert_numbers(of(ranks, "compute", "values"), whole)


def test_a_rank_keeps_its_own_state_after_compute(ranks):
    for rank, mine in enumerate(SHARES[len(ranks)]):
        count, skipped = sum(SIZES[index] for index in mine), int(2 in mine)
        wanted = [(count - skipped, skipped, False, True)] * MEMBERS
        assert ranks[rank]["compute"]["local"] == ranks[rank]["members_alone"]["local"] == wanted


def test_members_alone_sync_in_one_collective_each(ranks, whole):
    assert of(ranks, "members_alone", "collectives") == [[ONE] * MEMBERS] * len(ranks)
    assert_numbers(of(ranks, "members_alone", "values"), whole)
    wanted = [
        {"collectives": ONE, "during": SEEN, "after": sum(SIZES[index] - (index == 2) for index in mine)}
        for mine in SHARES[len(ranks)]
    ]
    assert of(ranks, "manual_sync") == wanted


def test_the_count_of_collectives_sees_those_of_torchmetrics(ranks):
    states = 5 * MEMBERS
    assert of(ranks, "stock") == [{"c10d::barrier": states, "c10d::allgather_": states}] * len(ranks)


def test_a_cached_value_on_one_rank_makes_no_other_wait(ranks):
    wanted = updated(make(extra=extras()), [*ALL, 1]).compute()
    assert_numbers(of(ranks, "only_one_rank_goes_on", "values"), wanted)
    assert_numbers([{"pearson_rgb": value} for value in of(ranks, "only_one_rank_goes_on", "member")], wanted)


def test_extras_of_our_base_join_and_others_sync_themselves(ranks, whole):
    assert_numbers(of(ranks, "extra", "values"), whole)
    for rank in ranks:
        alone = {name: sum(kinds.get(name, 0) for kinds in rank["extra"]["singly"]) for name in rank["extra"]["singly"][0]}
        alone["c10d::allgather_"] += 1
        assert rank["extra"]["collectives"] == alone


def test_process_group_is_honoured(ranks):
    inside = sorted({0, len(ranks) - 1})
    shares = SHARES[len(ranks)]
    wanted = updated(make(), [index for rank in inside for index in shares[rank]]).compute()
    assert_numbers([ranks[rank]["process_group"]["values"] for rank in inside], wanted)
    for rank, outcome in enumerate(of(ranks, "process_group")):
        assert outcome["collectives"] == (ONE if rank in inside else {})
        if rank not in inside:
            assert all(value.isnan() for value in outcome["values"].values())  # its own share, which is empty


def test_dist_sync_fn_is_called_once_with_all_states(ranks, whole):
    assert of(ranks, "dist_sync_fn", "shapes") == [[((5 * MEMBERS,), torch.float64)]] * len(ranks)
    assert_numbers(of(ranks, "dist_sync_fn", "values"), whole)


@pytest.mark.parametrize("setting", ["sync_on_compute", "distributed_available_fn"])
def test_no_synchronisation_where_it_is_switched_off(ranks, setting):
    for rank, mine in enumerate(SHARES[len(ranks)]):
        values, collectives = ranks[rank]["no_sync"][setting]
        assert collectives == {}
        assert_numbers([values], updated(make(), mine or [0]).compute())


def test_an_error_on_one_rank_is_raised_on_all_and_leaves_each_its_own_state(ranks, whole):
    messages = {
        "ignore": ("ValueError", f"1 of {2 * SEEN + 2 * SKIPPED if len(ranks) == 1 else SEEN + SKIPPED + 2} clean images"),
        "error": ("NonFiniteImageError", "1 of 6 pairs of images hold NaN or infinite pixels"),
    }
    for strategy, (kind, message) in messages.items():
        for rank, mine in enumerate(SHARES[len(ranks)]):
            together, alone, states, again = ranks[rank]["an_error_on_one_rank"][strategy]
            assert together == alone
            assert together[0] == kind
            assert together[1].startswith(message)
            times = 2 if strategy == "ignore" and rank == len(ranks) - 1 else 1  # the last was merged with itself
            skipped = times * int(2 in mine)
            wanted = (times * sum(SIZES[index] for index in mine) - skipped, skipped, False, True)
            assert states == [wanted] * MEMBERS
            assert_numbers([again], whole)


def test_ranks_with_other_members_or_settings_are_told_so(ranks):
    for errors in of(ranks, "ranks_that_differ"):
        for error in errors:
            if len(ranks) == 1:
                assert error is None
            else:
                assert error[0] == "RuntimeError"
                assert error[1].startswith("The processes hold different metrics, or the same with different settings")


def test_counts_are_exact_integers(ranks):
    assert of(ranks, "exact_counts") == [sum(2**50 + rank for rank in range(len(ranks)))] * len(ranks)


def test_forward_with_sync_on_step_ends_with_the_same_numbers(ranks):
    steps = [[(rank + step) % 3 for rank in range(len(ranks))] for step in (0, 1)]
    end = updated(make(extra=extras()), [index for indices in steps for index in indices]).compute()
    for on_step in (False, True):
        assert_numbers(of(ranks, "forward", on_step, "end"), end)
        for step, indices in enumerate(steps):
            found = of(ranks, "forward", on_step, "steps", step)
            assert [outcome["book"] for outcome in found] == [[True, (step + 1, None)]] * len(ranks)
            assert all(outcome["gradient"] > 0 for outcome in found)
            if on_step:
                assert_numbers([outcome["values"] for outcome in found], updated(make(extra=extras()), indices).compute())
            else:
                for outcome, index in zip(found, indices, strict=True):
                    assert_numbers([outcome["values"]], updated(make(extra=extras()), [index]).compute())
                    assert outcome["collectives"] == {}


def test_a_checkpoint_in_the_middle_changes_nothing(ranks, whole):
    assert_numbers(of(ranks, "checkpoint"), whole)
