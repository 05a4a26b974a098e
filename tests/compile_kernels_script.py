"""Compiles every Triton kernel for an H200 (sm_90) without a device; prints the size of each in bytes of machine code."""

import torch
import triton
from triton.backends.compiler import GPUTarget

from attacker_metrics import standard_components
from attacker_metrics.engine import triton_kernels
from attacker_metrics.scoring.components import program_of


class AbsentDevice:
    """What Triton asks a driver for when it compiles but does not run."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, _device):
        return 0


def compile_ahead(kernel, programs, *arguments, warps, registers=None):
    settings = {"num_warps": warps, "num_stages": 1, "maxnreg": registers, "enable_fp_fusion": True}
    compiled = kernel.warmup(*arguments, grid=(programs,), **settings)
    print(kernel.__name__, len(compiled.asm["cubin"]))


if __name__ == "__main__":
    triton.runtime.driver.set_active(AbsentDevice())
    triton_kernels._launch = compile_ahead
    noisy, clean, scores, finite = (*torch.empty(2, 1, 3, 224, 224), torch.empty(1, 15), torch.ones(1, dtype=torch.bool))
    program = program_of(list(standard_components(betas=(0.5, 0.5)).values()), 3, 224, 224)
    slopes = [torch.empty(1, 14, 224, 224), torch.empty(0)]
    triton_kernels.forward(noisy, clean, finite, program, scores, slopes)
    triton_kernels.backward(scores, noisy, clean, finite, slopes, program, [torch.empty_like(noisy), torch.empty(0)])
