"""Partial metrics, as engines that map and reduce return them: pickled, and merged in any order."""

import pickle

import pytest
import torch
from conftest import CASES, NAMES, SMALL, every_class, pictures, spoil
from torchmetrics import MeanMetric, SumMetric
from torchmetrics.wrappers import MinMaxMetric

import attacker_metrics as am
from attacker_metrics import MultiAttackerPrivacy

BATCHES = tuple(pictures(size, seed=size) for size in (3, 1, 4))


class Brightness(MeanMetric):
    def update(self, preds, target):
        super().update(target)


def make(**settings):
    return MultiAttackerPrivacy(**{"betas": SMALL, **settings})


def part(batches, **settings):
    """What a worker sends back."""
    metric = make(**settings)
    for noisy, clean in batches:
        metric.update(noisy, clean)
    return pickle.dumps(metric)


def states(metric):
    return {name: (member.metric_state, member._update_count) for name, member in metric.items()}


def test_merged_parts_equal_one_pass():
    whole = pickle.loads(part(BATCHES, extra={"light": Brightness()}))
    for shares in ([BATCHES[:1], (), BATCHES[1:]], [BATCHES[2:], BATCHES[:2]]):
        total = make(extra={"light": Brightness()})
        for share in shares:
            total.merge_state(pickle.loads(part(share, extra={"light": Brightness()})))
        values, wanted = total.compute(), whole.compute()
        assert tuple(values) == (*NAMES, "light")
        for name, value in values.items():
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-7)
        assert [int(total[name].count) for name in NAMES] == [8] * 17
        assert total["light"].update_count == 3


def test_a_merge_after_compute_is_seen_and_the_part_stays_as_it_was():
    total, other = pickle.loads(part(BATCHES[:1])), pickle.loads(part(BATCHES[1:]))
    total.compute()
    before = other.compute()
    total.merge_state(other)
    assert torch.equal(total.compute()["ms_ssim"], pickle.loads(part(BATCHES)).compute()["ms_ssim"])
    assert all(torch.equal(value, before[name]) for name, value in other.compute().items())
    total.update(*BATCHES[0])
    assert (int(total["pearson"].count), int(other["pearson"].count)) == (11, 5)


def test_the_state_alone_can_be_merged_and_bears_the_prefix():
    total = make(prefix="val/")
    total.merge_state(pickle.loads(part(BATCHES, prefix="val/")).metric_state)
    total.merge_state(pickle.loads(part(BATCHES[:1], prefix="test/")))
    assert int(total["val/pearson"].count) == 11


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compute_ms_ssim": False}, r"same members can be merged; one of the two lacks \['blur_gray'"),
        ({"extra": {"light": Brightness()}}, r"lacks \['light'\]"),
        ({"gamma_values": (3.0,)}, "GammaMSSSIM 'gamma_gray': only metrics of the same class and settings can be merged"),
    ],
)
def test_other_members_or_settings_are_refused_and_nothing_is_merged(settings, message):
    total = pickle.loads(part(BATCHES[:1]))
    before = states(total)
    with pytest.raises(ValueError, match=message):
        total.merge_state(pickle.loads(part(BATCHES, **settings)))
    assert states(total) == before


@pytest.mark.parametrize("other", [SumMetric(), am.RGBPearson()])
def test_a_foreign_member_that_refuses_leaves_all_as_they_were(other):
    total = pickle.loads(part(BATCHES[:1], extra={"light": Brightness()}))
    before = states(total)
    with pytest.raises(ValueError, match="instance of Brightness"):
        total.merge_state(make(extra={"light": other}))
    assert states(total) == before


def test_a_wrapper_keeps_its_state_inside_and_cannot_be_merged():
    wrapped = {"extremes": MinMaxMetric(am.RGBPearson())}
    with pytest.raises(ValueError, match="extra: 'extremes', a MinMaxMetric, has no state of its own"):
        make(extra=wrapped).merge_state(make(extra=wrapped))


@every_class
def test_a_single_metric_merges_those_of_its_class_and_settings(case):
    first, second = case.make(), case.make()
    first.update(*BATCHES[0])
    second.update(*BATCHES[1])
    first.merge_state(second)
    wanted = torch.cat([case.per_image(*batch) for batch in BATCHES[:2]]).mean()
    assert abs(first.compute() - wanted) <= 1e-6
    assert first.update_count == 2
    other = next(c for c in CASES if c.name != case.name).make()
    message = f"{case} '{case.name}': only metrics of the same class and settings can be merged"
    for wrong in (other, other.metric_state):
        with pytest.raises(ValueError, match=message):
            first.merge_state(wrong)
    assert int(first.count) == 4


@pytest.mark.parametrize(
    ("fact", "strategy", "error", "message"),
    [
        ("out_of_range", "warn", ValueError, r"2 of 3 clean images leave \[0, 1\]"),
        ("skipped", "error", am.NonFiniteImageError, "2 of 5 pairs of images hold NaN"),
    ],
)
def test_flags_that_an_accelerator_left_are_raised_after_a_merge(fact, strategy, error, message):
    worker, total = am.RGBPearson(nan_strategy=strategy), am.RGBPearson(nan_strategy=strategy)
    worker.update(*BATCHES[0])
    setattr(worker, worker._state(fact), torch.tensor(2))  # as on a device, where update does not look
    total.merge_state(pickle.loads(pickle.dumps(worker)))
    with pytest.raises(error, match=message):
        total.compute()


def test_skipped_pairs_are_merged_without_a_second_warning():
    with pytest.warns(am.AttackerMetricsWarning, match="1 of 3"):
        worker = pickle.loads(part([(spoil(BATCHES[0][0], 1), BATCHES[0][1])]))
    total = make()
    total.merge_state(worker)
    assert {(int(m.count), int(m.skipped)) for m in total.values()} == {(2, 1)}
    assert all(value.isfinite() for value in total.compute().values())
