"""How unusual a score is: first within the picture, then among all unrelated comparisons of the run.

A score is measured against those that the same sent picture has with unrelated originals (:func:`standardized`), so that a
picture with much texture, a frame or little content is judged by its own kind. What comes out is one scale per attacker, on
which all comparisons of a run are pooled: its tail says how rare a value is (:func:`surprise`), and rarities of different
attackers compare.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PRIOR = 8
"""A picture's spread counts together with that of all pictures, as if these had shown it on so many further originals."""
TRIMMED = 0.1
"""Share of the lowest and highest unrelated scores that are cut to the next one: a look-alike must not hide a leak."""
TAIL = 0.1
"""Share of all comparisons to which the tail is fitted."""
_CEILING = 0.9999
_FEWEST_IN_TAIL = 5


def standardized(own: Floats, null: Floats, sources: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Scores in units of their picture's spread over unrelated originals.

    Every unrelated original is measured against those of the same picture that are of other sources; the own original, which
    is the only one of its source, against all but those of one source, so that it has their distribution if nothing
    leaks. It is itself no yardstick for the others: a leak does not hide in a spread that it made.

    Args:
        own: ``(n,)`` of the pictures with their own originals; NaN where there is none.
        null: ``(n, k)`` of the same pictures with unrelated originals; NaN where there is none.
        sources: ``(n, k)`` the group of every unrelated original.

    Returns:
        Arrays of the same shapes; NaN where a picture has no originals of another source to measure by.
    """
    own, null = _spread_out(own, null)
    parts = [_measured(np.where(sources == sources[:, j, None], np.nan, null)) for j in range(null.shape[1])]
    counts, centers, variances = (np.stack(columns, axis=1) for columns in zip(*parts, strict=True))
    last = np.where(np.isnan(null), -1, np.arange(null.shape[1])).max(axis=1)[:, None].clip(0)
    known = ~np.isnan(null) & (counts > 0)
    typical = _typical(variances[known]) if known.any() else 1.0

    def spread(count: Floats, variance: Floats) -> Floats:
        free = np.maximum(count - 1, 0)
        scale: Floats = np.sqrt((PRIOR * typical + free * variance) / (PRIOR + free))
        return scale

    null_z = np.where(known, (null - centers) / spread(counts, variances), np.nan)
    count, center, variance = (np.take_along_axis(table, last, axis=1)[:, 0] for table in (counts, centers, variances))
    return np.where(count > 0, (own - center) / spread(count, variance), np.nan), null_z


def surprise(values: Floats, pool: Floats) -> Floats:
    """How rare it is to reach a value, in decades: 2 for one unrelated comparison in a hundred.

    Within the pool it is the mid-rank; in the highest tenth a generalised Pareto tail, so that values beyond all of the pool
    are still ordered, and attackers with heavy tails count for what they are worth.

    Args:
        values: of any shape; NaN stays NaN.
        pool: ``(m,)`` of unrelated comparisons, without NaN.

    Source: Hosking and Wallis, "Parameter and quantile estimation for the generalized Pareto distribution", 1987
    (probability-weighted moments); the tail is never taken to be lighter than exponential.
    """
    ordered, m = np.sort(pool), len(pool)
    up_to = np.searchsorted(ordered, values, side="right")
    rank = (np.searchsorted(ordered, values, side="left") + up_to) / 2
    rarity = -np.log10(np.clip(1 - rank / m, 0.5 / m, 1))
    start = ordered[int((1 - TAIL) * m)]
    beyond = ordered[ordered > start] - start
    count = len(beyond)
    if count >= _FEWEST_IN_TAIL:
        weights = 1 - (np.arange(1, count + 1) - 0.35) / count
        mean, weighted = float(beyond.mean()), float((beyond * weights).mean())
        shape = float(np.clip(2 - mean / max(mean - 2 * weighted, 1e-12 * mean), 0, 0.95))
        reach = np.maximum(values - start, 0) / (mean * (1 - shape))
        decades = (np.log1p(shape * reach) / shape if shape > 1e-6 else reach) / np.log(10)
        share = -np.log10(count / m)
        rarity = np.where(values > start, share + decades, np.minimum(rarity, share))
    return np.where(np.isnan(values), np.nan, rarity)


def _spread_out(own: Floats, null: Floats) -> tuple[Floats, Floats]:
    """Fisher's transform of the square root, where scores are shares: it makes the spread of correlations even."""
    if np.nanmin(null, initial=0.0) < 0 or np.nanmax(null, initial=1.0) > 1:
        return own, null

    def stretched(scores: Floats) -> Floats:
        values: Floats = np.arctanh(np.minimum(np.sqrt(np.clip(scores, 0, 1)), _CEILING))
        return values

    return stretched(own), stretched(null)


def _measured(reference: Floats) -> tuple[Floats, Floats, Floats]:
    """Of every row how many values are not NaN, their mean and variance, lowest and highest tenth cut to the next one."""
    ordered = np.sort(reference, axis=1)  # NaN last
    count = (~np.isnan(ordered)).sum(axis=1, keepdims=True)
    cut = (TRIMMED * count).astype(np.int64)
    place = np.arange(ordered.shape[1])
    values = np.take_along_axis(ordered, np.clip(place, cut, np.maximum(count - 1 - cut, 0)), axis=1)
    inside = place < count
    mean = np.where(inside, values, 0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    squares = np.where(inside, (values - mean) ** 2, 0).sum(axis=1, keepdims=True)
    numbers = (count.astype(np.float64), mean, squares / np.maximum(count - 1, 1))
    return numbers[0][:, 0], numbers[1][:, 0], numbers[2][:, 0]


def _typical(variances: Floats) -> float:
    """The variance of most pictures; above 0 if any differs, for where most scores are equal, such as 0."""
    return float(max(np.median(variances), 0.01 * variances.mean(), 1e-18))
