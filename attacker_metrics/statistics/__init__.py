"""What a set of per-image scores does and does not show: intervals, tails, success rates, paired tests.

Every function takes plain arrays: ``scores`` of shape (n,), one number per pair, and optionally ``groups`` of shape (n,),
the identity or source that a pair comes from. Pairs of one group resemble each other: without ``groups`` their intervals are
too narrow and their tests find too much. Random numbers are seeded; the same input gives the same numbers.

Needs the extra ``cli``.

- ``bootstrap``: intervals of the mean and of the mean of the worst 5 %;
- ``quantiles``: p90, p95, p99 with intervals, refused where n does not support them;
- ``proportions``: k of n with interval and upper bound;
- ``risk``: what an attack adds to guessing;
- ``paired``: the test of a paired difference, and the correction for testing many;
- ``tails``: one summary of all of these.
"""

from importlib.util import find_spec

from attacker_metrics._extras import missing_extra

for _name in ("scipy", "statsmodels"):
    if find_spec(_name) is None:
        raise missing_extra(f"attacker_metrics.statistics needs {_name}", "cli", ModuleNotFoundError(name=_name))

from attacker_metrics.statistics.bootstrap import mean_interval, mean_of_worst  # noqa: E402
from attacker_metrics.statistics.paired import SignFlipTest, holm, sign_flip_test  # noqa: E402
from attacker_metrics.statistics.proportions import Rate, rate_of_counts, success_rate  # noqa: E402
from attacker_metrics.statistics.quantiles import UnsupportedQuantileError, pairs_needed, quantile  # noqa: E402
from attacker_metrics.statistics.risk import residual_risk  # noqa: E402
from attacker_metrics.statistics.sample import Estimate  # noqa: E402
from attacker_metrics.statistics.tails import TailSummary, tail_summary  # noqa: E402

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
    "residual_risk",
    "sign_flip_test",
    "success_rate",
    "tail_summary",
]
