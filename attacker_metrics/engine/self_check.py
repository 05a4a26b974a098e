"""Whether a compiled implementation gives torch's numbers on a device: found out before it is chosen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attacker_metrics.attackers.standard import Attacker, Blur, Gamma, Wavelet, clamp, luma, minmax, sobel, standardize
from attacker_metrics.engine.eager import scores as eager
from attacker_metrics.engine.program import MSSSIMMeasurement, PearsonMeasurement, Program

_MADE: tuple[tuple[Attacker, int], ...] = (
    *((luma, 0), (luma, 1), (clamp, 2), (clamp, 0), (minmax, 0), (minmax, 2)),  # views 2 to 7
    *((sobel, 2), (sobel, 3), (minmax, 8), (minmax, 9), (Blur(2.0), 4), (Blur(2.0), 3)),  # 8 to 13
    *((standardize, 2), (standardize, 3), (Gamma(0.5), 4), (Gamma(0.5), 3)),  # 14 to 17
    *((Wavelet(0.1), 4), (Wavelet(0.1), 3)),  # 18 and 19
)
_BY_MS_SSIM = ((5, 1), (6, 1), (4, 3), (7, 3), (10, 11), (12, 13), (14, 15), (16, 17), (18, 19))
_BY_PEARSON = ((5, 1), (4, 3), (8, 9), (12, 13), (16, 17), (18, 19))
_PROGRAM = Program(
    _MADE,
    tuple(MSSSIMMeasurement(k, 1, *views, (0.5, 0.5), "relu") for k, views in enumerate(_BY_MS_SSIM)),
    tuple(PearsonMeasurement(k, 1, *views, 1e-12) for k, views in enumerate(_BY_PEARSON, start=len(_BY_MS_SSIM))),
    len(_BY_MS_SSIM) + len(_BY_PEARSON),
)
"""The fifteen components at two scales."""
_verdicts: dict[int, str] = {}  # what is wrong on every device on which the Triton kernels were checked, by index
_SCORES, _GRADIENTS = 1e-4, 1e-2  # absolute, and relative in L2: a wrong kernel is far off, rounding far below


def of_triton(device: torch.device) -> str:
    """What is wrong with the Triton kernels on a CUDA device, empty if nothing is; found out once per process.

    The first call per device waits for it. While a CUDA graph is captured nothing may be waited for: then an unchecked
    device is taken as it is.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    if index not in _verdicts:
        with torch.cuda.device(index):
            if torch.cuda.is_current_stream_capturing():
                return ""
            mode = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("default")  # this once the device is waited for
            try:
                _verdicts[index] = disagreement(torch.device("cuda", index))
            finally:
                torch.cuda.set_sync_debug_mode(mode)
    return _verdicts[index]


@torch.no_grad()
def disagreement(device: torch.device, implementation: Any = None) -> str:
    """What is wrong with an implementation, by default the Triton kernels, on a device; empty if nothing is.

    A small pair of batches is scored by it and by torch.
    """
    try:
        if implementation is None:
            from attacker_metrics.engine import triton_kernels as implementation

        ours, theirs = (_results(module, device) for module in (implementation, eager))
    except Exception as error:  # whatever the compiler, the driver or the device throws, torch still runs
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    off = float((ours[0] - theirs[0]).abs().max())
    if not off <= _SCORES:
        return f"their scores are off by {off:.1g}"
    pairs = zip(ours[1:], theirs[1:], strict=True)
    far = float(torch.stack([(one - other).norm() / other.norm() for one, other in pairs]).max())
    return "" if far <= _GRADIENTS else f"their gradients are off by {far:.1g} of their norm"


def _results(module: Any, device: torch.device) -> list[Tensor]:
    """Scores of two small pairs of pictures after every attacker, and a gradient in either side."""
    height, width = 26, 22
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.rand(2, 2, 3, height, width, generator=generator, dtype=torch.float32)
    noisy = 0.7 * clean + 0.4 * noise
    counts = _PROGRAM.channels(3)
    planes = sum(counts[m.noisy] for m in _PROGRAM.ms_ssim)
    noisy, clean = noisy.to(device), clean.to(device)
    finite = torch.ones(2, dtype=torch.bool, device=device)

    def unset(*shape: int) -> Tensor:  # what an implementation does not fill must not pass
        return torch.full(shape, torch.nan, dtype=torch.float32, device=device)

    scores = unset(2, _PROGRAM.components)
    slopes = [unset(2, planes, height, width) for _ in range(2)]
    totals = [unset(*noisy.shape) for _ in range(2)]
    module.forward(noisy, clean, finite, _PROGRAM, scores, slopes)
    module.backward(torch.ones_like(scores), noisy, clean, finite, slopes, _PROGRAM, totals)
    return [scores.cpu(), *(total.cpu() for total in totals)]
