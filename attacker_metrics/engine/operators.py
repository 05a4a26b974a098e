"""The engine: all scores of a pair of batches in one pass, and their gradients in another, as registered operators.

The forward makes every view of a :class:`~attacker_metrics.engine.program.Program` once and compares them. For the backward
it keeps one slope per plane that MS-SSIM compares (see :mod:`attacker_metrics.engine.eager.ms_ssim`) and nothing else: the
views are made again, the slopes weighted by the gradients of the scores, joined with those of the squared Pearsons and
pulled back through the attackers (see :mod:`attacker_metrics.attackers`). Any weighting of the scores, per image, is thus
one backward.

What does the work is a module of :mod:`attacker_metrics.engine.backends`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from attacker_metrics._transforms import transforming, wants_gradient
from attacker_metrics.engine.backends import implementation
from attacker_metrics.engine.program import Program, from_numbers


def evaluate(noisy: Tensor, clean: Tensor, finite: Tensor, program: Program) -> Tensor:
    """Score every image pair, differentiably (once) with respect to both batches.

    Args:
        noisy: images ``(B, C, H, W)`` in any floating dtype, large enough for the program's attackers and scales.
        clean: the same shape and device, in any floating dtype.
        finite: ``(B,)`` bool: neither image of the pair holds a NaN or an infinity.
        program: what to evaluate.

    Returns:
        ``(B, components)`` in float32, or float64 if an input is; NaN with zero gradient where not finite.

    Raises:
        NotImplementedError: for forward-mode derivatives (``jvp``, ``jacfwd``, ``hessian``), which would be 0 (within an
            error of torch's if compiled), and where a gradient would have to pass an attacker that is
            :data:`~attacker_metrics.engine.program.ONE_WAY`.
    """
    compiling, sides = torch.compiler.is_compiling(), (noisy, clean)
    # A compiler sees whether forward-mode derivatives are on, not always whether these tensors have one.
    if forward_ad._current_level >= 0 and (compiling or any(map(_has_tangent, sides))):
        _refuse_forward_mode()
    wanted = [wants_gradient(image) for image in sides]
    if any(wanted) and program.one_way:
        raise NotImplementedError("the program has attackers without pull-backs: evaluate it without gradients.")
    if any(wanted) and not compiling:  # what was made in inference mode cannot be kept for a backward
        noisy, clean = (image.clone() if image.is_inference() else image for image in sides)
    operation: Callable[..., tuple[Tensor, ...]] = _scores
    if not compiling and transforming():
        operation = _ScoresTransformed.apply
    elif not compiling and not any(wanted) and _nobody_looks_on(*sides):
        operation = _scored
    with torch.autocast(noisy.device.type, enabled=False):
        scores: Tensor = operation(noisy, clean, finite, *program.to_numbers(), *wanted, compiling)[0]
    return scores


def _nobody_looks_on(*images: Tensor) -> bool:
    """Whether no tracer or mode has to see an operator: its first call imports torch's compiler, more than a second."""
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if traced or _get_current_dispatch_mode() is not None:
        return False
    return all(image.device.type == "cpu" and type(image) in (Tensor, torch.nn.Parameter) for image in images)


def _refuse_forward_mode(*_: Any) -> NoReturn:
    raise NotImplementedError(
        "the scores have no forward-mode derivatives (jvp, jacfwd, hessian): use backward(), or torch.func's grad, vjp and"
        " jacrev."
    )


def _has_tangent(image: Tensor) -> bool:
    return forward_ad.unpack_dual(image).tangent is not None  # type: ignore[no-untyped-call]


def _scored(
    noisy: Tensor,
    clean: Tensor,
    finite: Tensor,
    program: list[int],
    numbers: list[float],
    slope_noisy: bool,
    slope_clean: bool,
    compiled: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The scores, and where wanted the slope of every MS-SSIM comparison in its noisy and its clean planes."""
    scores, *slopes = _outputs(noisy, clean, finite, program, numbers, slope_noisy, slope_clean, compiled)
    read = from_numbers(program, numbers)
    implementation(noisy, scores.dtype, read, compiled=compiled).forward(noisy, clean, finite, read, scores, slopes)
    return scores, slopes[0], slopes[1]


_scores = torch.library.custom_op(
    "attacker_metrics::scores",
    _scored,
    mutates_args=(),
    schema="(Tensor noisy, Tensor clean, Tensor finite, int[] program, float[] numbers, bool slope_noisy, bool slope_clean,"
    " bool compiled) -> (Tensor, Tensor, Tensor)",
)


@_scores.register_fake
def _outputs(
    noisy: Tensor,
    clean: Tensor,
    _finite: Tensor,
    program: list[int],
    numbers: list[float],
    slope_noisy: bool,
    slope_clean: bool,
    _compiled: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    read = from_numbers(program, numbers)
    batch, channels, height, width = noisy.shape
    counts = read.channels(channels)
    planes = sum(counts[m.noisy] for m in read.ms_ssim)
    dtype = torch.float64 if torch.float64 in (noisy.dtype, clean.dtype) else torch.float32

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=noisy.device)

    slopes = [empty(batch, planes, height, width) if wanted else empty(0) for wanted in (slope_noisy, slope_clean)]
    return empty(batch, read.components), slopes[0], slopes[1]


@torch.library.custom_op(
    "attacker_metrics::scores_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor noisy, Tensor clean, Tensor finite, Tensor slopes_noisy, Tensor slopes_clean,"
    " int[] program, float[] numbers, bool wants_noisy, bool wants_clean,"
    " bool compiled) -> (Tensor, Tensor)",
)
def _scores_backward(
    gradient: Tensor,
    noisy: Tensor,
    clean: Tensor,
    finite: Tensor,
    slopes_noisy: Tensor,
    slopes_clean: Tensor,
    program: list[int],
    numbers: list[float],
    wants_noisy: bool,
    wants_clean: bool,
    compiled: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of both batches, given those of the scores; an empty tensor where none is wanted."""
    wanted = (wants_noisy, wants_clean)
    sizes = [noisy.shape if keep else (0,) for keep in wanted]
    totals = [torch.empty(size, dtype=gradient.dtype, device=noisy.device) for size in sizes]
    read, slopes = from_numbers(program, numbers), [slopes_noisy, slopes_clean]
    chosen = implementation(noisy, gradient.dtype, read, compiled=compiled)
    chosen.backward(gradient, noisy, clean, finite, slopes, read, totals)
    cast = [_cast(total, side.dtype) for total, side in zip(totals, (noisy, clean), strict=True)]
    return cast[0], cast[1]


@_scores_backward.register_fake
def _gradients(
    _gradient: Tensor,
    noisy: Tensor,
    clean: Tensor,
    _finite: Tensor,
    _slopes_noisy: Tensor,
    _slopes_clean: Tensor,
    _program: list[int],
    _numbers: list[float],
    wants_noisy: bool,
    wants_clean: bool,
    _compiled: bool,
) -> tuple[Tensor, Tensor]:
    return (
        noisy.new_empty(noisy.shape if wants_noisy else (0,)),
        clean.new_empty(clean.shape if wants_clean else (0,)),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    noisy, clean, finite, ctx.program, ctx.numbers, *ctx.wanted, ctx.compiled = inputs
    ctx.save_for_backward(noisy, clean, finite, *output[1:])
    ctx.set_materialize_grads(False)


def _pull_back_scores(ctx: Any, gradient: Tensor | None, *_of_slopes: Tensor | None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * 6
    if gradient is None:
        return None, None, *nothing
    operation = _BackwardTransformed.apply if not ctx.compiled and transforming() else _scores_backward
    found = operation(gradient, *ctx.saved_tensors, ctx.program, ctx.numbers, *ctx.wanted, ctx.compiled)
    return *(total if wanted else None for total, wanted in zip(found, ctx.wanted, strict=True)), *nothing


def _refuse(*_: Any) -> None:
    raise RuntimeError("the scores can be differentiated once only: their second derivatives are not implemented.")


_scores.register_autograd(_pull_back_scores, setup_context=_keep)
_scores_backward.register_autograd(_refuse)


class _ScoresTransformed(torch.autograd.Function):
    """The first operator as ``torch.func`` takes it: pairs are scored one by one, so a mapped dimension is more of them."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return _scores(*arguments)  # type: ignore[no-any-return]

    setup_context = staticmethod(_keep)
    backward = staticmethod(_pull_back_scores)
    jvp = staticmethod(_refuse_forward_mode)  # type: ignore[assignment]

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return _as_one_batch(_ScoresTransformed.apply, info.batch_size, dims, arguments)


class _BackwardTransformed(torch.autograd.Function):
    """The second operator likewise."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return _scores_backward(*arguments)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    backward = staticmethod(_refuse)  # type: ignore[assignment]
    jvp = staticmethod(_refuse_forward_mode)  # type: ignore[assignment]

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return _as_one_batch(_BackwardTransformed.apply, info.batch_size, dims, arguments)


def _as_one_batch(
    operation: Callable[..., tuple[Tensor, ...]], mapped: int, dims: Sequence[int | None], arguments: Sequence[Any]
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Lay the mapped dimension into the batch, operate, and take it out again."""
    folded = []
    for argument, dim in zip(arguments, dims, strict=True):
        if isinstance(argument, Tensor):
            argument = argument.expand(mapped, *argument.shape) if dim is None else argument.movedim(dim, 0)
            argument = argument.flatten(0, 1)
        folded.append(argument)
    found = operation(*folded)
    return tuple(each.view(mapped, len(each) // mapped, *each.shape[1:]) for each in found), (0,) * len(found)


def _cast(gradient: Tensor, dtype: torch.dtype) -> Tensor:
    """In float16 saturated instead of infinite."""
    if dtype == torch.float16:
        limit = torch.finfo(dtype).max
        gradient = gradient.clamp_(-limit, limit)
    return gradient.to(dtype)
