"""Scores -> one number to train against: :class:`MultiAttackerPrivacyLoss`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from attacker_metrics._settings import SettingTypeError, number, sequence
from attacker_metrics._spelling import known_as
from attacker_metrics._transforms import transforming
from attacker_metrics.attackers.filters import invert
from attacker_metrics.attackers.standard import (
    DEFAULT_GAMMA_ATTACK_VALUES,
    DEFAULT_GAUSSIAN_BLUR_SIGMA,
    DEFAULT_WAVELET_SOFT_THRESHOLD,
    clamp,
    luma,
)
from attacker_metrics.scoring.components import MEANS, Component, component_names, program_of, standard_components
from attacker_metrics.scoring.functional import means_or_zeros
from attacker_metrics.scoring.pair import Pair, check_images
from attacker_metrics.scoring.similarity import DEFAULT_BETAS, MSSSIM, Normalize

INVERTED = "inverted_gray"
"""The inversion-aware term's name among the weights and the components."""


@dataclass(frozen=True, eq=False)
class PreparedClean:
    """A clean batch that :meth:`MultiAttackerPrivacyLoss.prepare` checked, denormalised and cast, for several steps.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1], float32 or float64, detached; not shown when printed.
    """

    images: Tensor = field(repr=False)


class MultiAttackerPrivacyLoss(nn.Module):
    r"""What the attackers still read out of the noisy images, as one scalar to minimise; lower = more private.

    .. math::
        \sum_f W_f \frac{\sum_{i \in f} w_i s_i}{\sum_{i \in f} w_i} + W_\mathrm{inverted}\, s_\mathrm{inverted}

    over the families f, ``ms_ssim`` and ``pearson``, whose components :math:`s_i` are those of
    :func:`~attacker_metrics.multi_attacker_privacy_loss`. With the defaults it is ``ms_ssim + pearson``, in [0, 2].

    The module has no parameters, no buffers and no state that training depends on: it adds nothing to a checkpoint, and
    copies, pickles, compiles and runs under DDP and FSDP as a function does. It computes in float32 at least and returns
    float32 (float64 for float64 images), also under autocast and for half-precision images, so that a ``GradScaler`` can
    scale it. After each call :attr:`components` holds the scores, detached, for logging; inside ``torch.func``'s transforms,
    such as ``vmap``, where no value can be kept, it is empty.

    **Where gradients die.** With the default ``normalize="relu"`` the values are the specification's, but an image with
    one negative MS-SSIM term has an MS-SSIM of 0 without a gradient: a negative looks safe, and training may park there.
    ``normalize="fold"`` keeps every gradient alive and equals the default while all terms are at least 0.01; why, is in
    :class:`~attacker_metrics.MSSSIM`. Weighing ``inverted_gray``, the MS-SSIM of ``1 - clamp(luma(noisy))`` with
    the clean luma, makes the loss look at the negative expressly, under either setting. Views that stretch their own
    contrast (minmax, standardize) have gradients that grow as one over the contrast of a picture that fades away, under any
    setting: from a picture to its negative the loss's gradient has a norm beyond 100 within about 0.0003 of plain grey,
    its minimum. Clip the gradient's norm, as is usual anyway.

    Args:
        weights: weights by name, >= 0, of families (``ms_ssim`` and ``pearson``: 1 each), of components within their
            family (1 each), and of ``inverted_gray`` (0: not evaluated). What is not named keeps its default. They are
            constants: learnable ones are refused, because minimising over them would only shrink them.
        gamma_values: exponents of the gamma attacker, one or more, each > 0.
        blur_sigma: standard deviation of the blur attacker in pixels, > 0.
        wavelet_threshold: soft threshold of the wavelet attacker, >= 0.
        compute_ms_ssim: whether to evaluate the nine MS-SSIM components.
        compute_pearson: whether to evaluate the six squared Pearsons.
        betas: MS-SSIM's exponents, one per scale; the smaller side must be at least ``11 * 2 ** (len(betas) - 1)`` pixels.
        normalize: ``"relu"`` (the specification), ``"fold"`` (for training) or ``"simple"``.
        mean: per channel, what the training pipeline subtracted from both images; with ``std``.
        std: per channel, what it divided them by, > 0: the loss reads ``images * std + mean``.

    Raises:
        ValueError: for settings out of range, unknown or unusable weights, or only one of ``mean`` and ``std``.

    Example:
        >>> import torch
        >>> loss = MultiAttackerPrivacyLoss(weights={"pearson": 0.5, "sobel_gray": 3}, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> clean = (torch.rand(2, 3, 176, 176) - 0.5) / 0.25
        >>> noise = torch.zeros_like(clean).requires_grad_()
        >>> value = loss(clean + noise, clean)
        >>> value.backward()
        >>> print(f"{value:.2f} {loss.components['ms_ssim']:.2f}")
        1.50 1.00
    """

    def __init__(
        self,
        *,
        weights: Mapping[str, float] | None = None,
        gamma_values: Sequence[float] = DEFAULT_GAMMA_ATTACK_VALUES,
        blur_sigma: float = DEFAULT_GAUSSIAN_BLUR_SIGMA,
        wavelet_threshold: float = DEFAULT_WAVELET_SOFT_THRESHOLD,
        compute_ms_ssim: bool = True,
        compute_pearson: bool = True,
        betas: Sequence[float] = DEFAULT_BETAS,
        normalize: Normalize = "relu",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        names = component_names(compute_ms_ssim=compute_ms_ssim, compute_pearson=compute_pearson)
        ms_ssim = MSSSIM(betas, normalize=normalize)  # type: ignore[arg-type]
        if normalize is None:
            raise ValueError("normalize=None makes a negative MS-SSIM term NaN; train with 'fold', 'relu' or 'simple'.")
        table = standard_components(
            gamma_values=gamma_values,
            blur_sigma=blur_sigma,
            wavelet_threshold=wavelet_threshold,
            betas=ms_ssim.betas,
            normalize=normalize,
        )
        self._table = {name: table[name] for name in names}
        self._inverted = Component(INVERTED, ms_ssim, (luma, clamp, invert), (luma,))
        self.weights = _column_weights({} if weights is None else weights, names)
        """Weight of every component or mean that counts, by name; the loss is the sum of their products."""
        self._channels = _denormalisation(mean, std)
        self.components: dict[str, Tensor] = {}
        """Scores of the last batch by name, detached scalars: the function's keys, and ``inverted_gray`` where weighed."""

    def forward(self, noisy: Tensor, clean: Tensor | PreparedClean) -> Tensor:
        """Compare a batch with its originals.

        Args:
            noisy: noisy images ``(B, 3, H, W)``, normalised by ``mean`` and ``std`` if these were given.
            clean: the originals likewise, in [0, 1] once denormalised; or what :meth:`prepare` made of them.

        Returns:
            A scalar in [0, the sum of the weights of families and ``inverted_gray``]. 0, with zero gradients and one
            :class:`~attacker_metrics.AttackerMetricsWarning`, if any pixel is NaN or infinite.

        Raises:
            TypeError: for tensors that are not floating.
            ValueError: for other shapes, an empty batch, or images too small.
        """
        prepared = clean.images if isinstance(clean, PreparedClean) else self._denormalised(clean)
        pair = Pair(self._denormalised(noisy), prepared)
        scores, names = pair.scores_side_by_side(list(self._table.values())), list(self._table)
        if INVERTED in self.weights:
            scores, names = torch.cat((scores, pair.score(self._inverted)[:, None]), dim=1), [*names, INVERTED]
        means = means_or_zeros(pair, scores, names, scores.dtype)
        if INVERTED in means:
            means[INVERTED] = means.pop(INVERTED)  # behind the function's keys
        self.components = {} if transforming() else {name: value.detach() for name, value in means.items()}
        return torch.stack([weight * means[name] for name, weight in self.weights.items()]).sum()

    def prepare(self, clean: Tensor) -> PreparedClean:
        """Check, denormalise and cast a clean batch once, for several steps against the same originals.

        What this saves is small: the cast and the denormalisation, 3 % of a step on the native kernel, and too little to
        be measured in torch; without ``mean`` and ``std``, nothing. What it returns is a copy. The clean side's views are
        made in every step: they are about 5 % of it in torch, and what follows depends on both sides. What it gives is an
        early, clear error.

        Raises:
            TypeError: for a tensor that is not floating.
            ValueError: for another shape, an empty batch, images too small, or pixels that are not in [0, 1] once
                denormalised.
        """
        check_images(clean, clean)
        program_of((*self._table.values(), *([self._inverted] if INVERTED in self.weights else ())), *clean.shape[1:])
        images = self._denormalised(clean.detach())
        dtype = torch.promote_types(images.dtype, torch.float32)
        images = images.to(dtype, copy=True, memory_format=torch.contiguous_format)  # the batch may be written to later
        pair = Pair(images, images)
        if not bool((pair.finite & pair.clean_in_range).all()):
            raise ValueError(
                "the clean images must be finite and lie in [0, 1]; if they are normalised, pass the mean and std of the"
                f" normalisation to the loss. Denormalised they span [{images.min():.3g}, {images.max():.3g}]."
            )
        return PreparedClean(images)

    def extra_repr(self) -> str:
        """The weights, as ``print`` shows them."""
        return ", ".join(f"{name}={weight:.3g}" for name, weight in self.weights.items())

    def _denormalised(self, images: Tensor) -> Tensor:
        if (
            self._channels is None
            or not isinstance(images, Tensor)
            or images.ndim != 4
            or images.shape[1] != 3
            or not images.is_floating_point()
        ):
            return images  # what is wrong with them, Pair says
        images = images.to(torch.promote_types(images.dtype, torch.float32))
        planes = zip(images.unbind(1), self._channels, strict=True)
        return torch.stack([plane * std + mean for plane, (mean, std) in planes], dim=1)


def _column_weights(given: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """The weights of the loss's summands: of a family's mean, or of its components if these weigh unequally."""
    families = {mean: members for mean, members in MEANS.items() if members[0] in names}
    known = (*families, *names, INVERTED)
    if not isinstance(given, Mapping):
        raise SettingTypeError(f"weights must be a dict from names to numbers, e.g. {{'pearson': 0.5}}, got {given!r}.")
    spelt = {name: known_as(name, known) if isinstance(name, str) else name for name in given}
    if len(set(spelt.values())) < len(spelt):
        raise ValueError(f"weights: {', '.join(map(repr, spelt))} name one weight twice, in two spellings; leave one out.")
    given = {spelt[name]: weight for name, weight in given.items()}
    for name in given:
        if name not in known:
            raise ValueError(f"weights: {name!r} is not evaluated; choose from {', '.join(known)}.")
    weights = {name: number(f"weights: {name!r}", weight, "be a number >= 0", least=0) for name, weight in given.items()}
    columns: dict[str, float] = {}
    for mean, members in families.items():
        within = {name: weights.get(name, 1.0) for name in members}
        total = sum(within.values())
        family = weights.get(mean, 1.0)
        if total == 0 < family:
            raise ValueError(f"weights: every component of {mean!r} has weight 0; pass {{{mean!r}: 0}} instead.")
        equal = len(set(within.values())) == 1
        columns |= {mean: family} if equal else {name: family * weight / total for name, weight in within.items()}
    columns[INVERTED] = weights.get(INVERTED, 0.0)
    counted = {name: weight for name, weight in columns.items() if weight > 0}
    if not counted:
        raise ValueError("weights: nothing is left with a weight above 0.")
    return counted


def _denormalisation(mean: Sequence[float] | None, std: Sequence[float] | None) -> tuple[tuple[float, float], ...] | None:
    """Mean and deviation of every channel, as plain numbers: no buffers that move, round or are broadcast."""
    if mean is None and std is None:
        return None
    if mean is None or std is None or not all(hasattr(values, "__len__") and len(values) == 3 for values in (mean, std)):
        raise ValueError(f"mean and std go together, three numbers each, got mean={mean!r} and std={std!r}.")
    whole = "mean must be finite and std positive"
    means = [number(f"{whole}; a mean", m, "be a number") for m in sequence(f"{whole}; mean", mean, "be three numbers")]
    stds = [number(f"{whole}; a std", s, "be above 0", above=0) for s in sequence(f"{whole}; std", std, "be three numbers")]
    return tuple(zip(means, stds, strict=True))
