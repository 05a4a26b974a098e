"""What a set of per-image scores does and does not show: intervals, tails, success rates, paired tests.

Every function takes plain arrays: ``scores`` of shape (n,), one number per pair, and optionally ``groups`` of shape (n,),
the identity or source that a pair comes from. Pairs of one group resemble each other: without ``groups`` their intervals are
too narrow and their tests find too much. Random numbers are seeded; the same input gives the same numbers.

Needs ``pip install 'attacker-metrics[cli]'``.

- ``bootstrap``: intervals of the mean and of the mean of the worst 5 %;
- ``quantiles``: p90, p95, p99 with intervals, refused where n does not support them;
- ``proportions``: k of n with interval and upper bound;
- ``paired``: the test of a paired difference, and the correction for testing many;
- ``tails``: one summary of all of these.
"""

try:
    from attacker_metrics.statistics.bootstrap import mean_interval, mean_of_worst
    from attacker_metrics.statistics.paired import SignFlipTest, holm, sign_flip_test
    from attacker_metrics.statistics.proportions import Rate, rate_of_counts, success_rate
    from attacker_metrics.statistics.quantiles import UnsupportedQuantileError, pairs_needed, quantile
    from attacker_metrics.statistics.sample import Estimate
    from attacker_metrics.statistics.tails import TailSummary, tail_summary
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"attacker_metrics.statistics needs {error.name}: pip install 'attacker-metrics[cli]'", name=error.name
    ) from error

__all__ = [
    "Estimate",
    "Rate",
    "SignFlipTest",
    "TailSummary",
    "UnsupportedQuantileError",
    "holm",
    "mean_interval",
    "mean_of_worst",
    "pairs_needed",
    "quantile",
    "rate_of_counts",
    "sign_flip_test",
    "success_rate",
    "tail_summary",
]
