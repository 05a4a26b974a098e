"""Is a paired difference more than chance: a permutation test, and the correction for asking of many attackers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attacker_metrics.statistics.sample import Sample

RESAMPLES = 9999
_CHUNK = 4_000_000


@dataclass(frozen=True)
class SignFlipTest:
    """The outcome of a sign-flip test.

    Args:
        p_value: two-sided; how often a random flip of signs gives a mean difference as large as the one seen.
        smallest: the smallest p-value that this many pairs or groups could have given; above 0.05 the test is void.
        exact: whether every flip was tried.
    """

    p_value: float
    smallest: float
    exact: bool


def sign_flip_test(
    differences: ArrayLike, groups: ArrayLike | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> SignFlipTest:
    """Test whether paired differences have a mean other than 0, by flipping their signs.

    If the two runs leaked alike, each difference would be as likely with either sign; groups flip as a whole. It says
    nothing about the size of a difference: with many pairs the smallest one is significant. With fewer than
    six groups nothing is.

    Args:
        differences: (n,) score of one run minus score of the other, per pair.
        groups: (n,) group of each pair.
        resamples: flips drawn if there are more; every flip is tried if there are at most so many, 2 ** groups.
        seed: of the draws.

    Raises:
        ValueError: for differences that are not finite or not of shape (n,).

    Source: Pitman, "Significance tests which may be applied to samples from any populations", 1937; Phipson and Smyth,
    "Permutation p-values should never be zero", 2010.

    Example:
        >>> sign_flip_test([0.1, 0.2, 0.3, 0.1, 0.2, 0.1])
        SignFlipTest(p_value=0.03125, smallest=0.03125, exact=True)
    """
    sample = Sample.of(differences, groups)
    sums = sample.sums(sample.scores)
    observed = abs(float(sums.sum()))
    reached = observed - 1e-12 * float(np.abs(sums).sum())  # sums in another order round differently
    exact = sample.groups < 63 and 2**sample.groups <= resamples
    count = 2**sample.groups if exact else resamples
    random = np.random.default_rng(seed)
    rows, extreme = max(1, _CHUNK // sample.groups), 0
    # scipy.stats.permutation_test does the same by indexing: 50 times slower at 1,000 pairs.
    for start in range(0, count, rows):
        chosen = np.arange(start, min(start + rows, count))
        flips = _binary(chosen, sample.groups) if exact else _coins(random, len(chosen), sample.groups)
        extreme += int((np.abs(sums.sum() - 2 * (flips @ sums)) >= reached).sum())
    if exact:
        return SignFlipTest(extreme / count, 2 / count, exact=True)
    return SignFlipTest((extreme + 1) / (count + 1), 1 / (count + 1), exact=False)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Correct p-values for their number: the chance of even one false finding stays below the level.

    Args:
        p_values: (m,) of all tests that were made, not only of those that look good.

    Returns:
        (m,) corrected p-values in the same order.

    Raises:
        ValueError: for values outside [0, 1] or an empty list.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p_values must have shape (m,) and lie in [0, 1], got {values.tolist()}.")
    # A second to import, so not before it is needed.
    from statsmodels.stats.multitest import multipletests

    return np.asarray(multipletests(values, method="holm")[1], dtype=np.float64)


def _binary(numbers: NDArray[np.int64], digits: int) -> NDArray[np.float64]:
    return (numbers[:, None] >> np.arange(digits) & 1).astype(np.float64)


def _coins(random: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    bits = np.unpackbits(np.frombuffer(random.bytes(rows * -(-columns // 8)), dtype=np.uint8))
    return bits.reshape(rows, -1)[:, :columns].astype(np.float64)
