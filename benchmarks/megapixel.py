"""Milliseconds per megapixel beside what people take for speed: one comparison, no gradient, one thread.

python benchmarks/megapixel.py [--size 1024] [--rounds 9] [--threads 1] [--output DIR]

Ours gives fifteen scores, by the compiled kernel in every variant that this processor runs and by torch; the others give
one. Those in Rust and C++ are not on the package index of Python; their figures are published, on another machine.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import frame
import torch
from loss import photographs
from torch import Tensor

from attacker_metrics import multi_attacker_scores
from attacker_metrics._names import BACKEND_VARIABLE
from attacker_metrics.engine import native
from attacker_metrics.engine.native.kernel import ISA

BASELINE = "fifteen scores, torch"
PUBLISHED = {
    "zensim (Rust)": 89,
    "butteraugli-rs": 154,
    "fast-ssim2 (Rust)": 350,
    "SSIMULACRA 2, libjxl (C++)": 377,
}
"""Milliseconds at 1920 x 1080 on one thread of an AMD Ryzen 9 7950X: README of imazen/zensim 0.2.1, read on 2026-11-28."""


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--size", type=int, default=1024, help="pixels a side (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(default: %(default)s)")
    options = frame.engine_options(parser)
    noisy, clean = photographs((1, 3, options.size, options.size), "cpu")
    noisy = noisy.clamp(0, 1)
    steps: dict[str, frame.Step] = {BASELINE: partial(ours, noisy, clean, "torch", "")}
    compiled = native.loaded()
    for isa in () if compiled is None else compiled.isas:
        steps[f"fifteen scores, compiled, {isa}"] = partial(ours, noisy, clean, "native", isa)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        steps |= peers(noisy, clean, Path(folder))
        results = frame.summarise(frame.interleave(steps, rounds=options.rounds), BASELINE)
    megapixels = options.size**2 / 1e6
    rows = [
        [name, frame.cell(found["wall_s"], 1e3 / megapixels, 1), frame.cell(found["cpu_s"]["ratio"], 1, 3)]
        for name, found in results.items()
    ]
    rows += [[f"{name}, published", f"{ms / (1.92 * 1.08):.0f}", ""] for name, ms in PUBLISHED.items()]
    print(frame.markdown(["contender", "ms per megapixel", "CPU ratio"], rows))
    payload: dict[str, Any] = {"size": options.size, "results": results, "published_ms_at_1080p": PUBLISHED}
    print(f"wrote {frame.save('megapixel', payload, options.output).name}")


def ours(noisy: Tensor, clean: Tensor, backend: str, isa: str) -> object:
    """The fifteen by an engine; the library is loaded anew where another variant is wanted, which takes a millisecond."""
    os.environ[BACKEND_VARIABLE] = backend
    if isa and (now := native.loaded()) is not None and now.isa != isa:
        os.environ[ISA] = isa
        native.loaded.cache_clear()
        native.loaded()
    return multi_attacker_scores(noisy, clean)


def peers(noisy: Tensor, clean: Tensor, folder: Path) -> dict[str, frame.Step]:
    """Name -> one score of those that are installed; the folder is for those that read files."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    found: dict[str, frame.Step] = {
        "MS-SSIM, torchmetrics": partial(multiscale_structural_similarity_index_measure, noisy, clean, data_range=1.0)
    }
    if find_spec("pytorch_msssim"):
        from pytorch_msssim import ms_ssim

        found["MS-SSIM, pytorch-msssim"] = partial(ms_ssim, noisy, clean, data_range=1.0)
    if find_spec("piq"):
        from piq import multi_scale_ssim

        found["MS-SSIM, piq"] = partial(multi_scale_ssim, noisy, clean)
    from skimage.metrics import structural_similarity

    sides = [image[0].permute(1, 2, 0).contiguous().numpy() for image in (noisy, clean)]
    found["SSIM, scikit-image"] = partial(
        structural_similarity, *sides, channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5
    )
    if find_spec("ssimulacra2"):
        from PIL import Image
        from ssimulacra2 import compute_ssimulacra2

        names = [str(folder / name) for name in ("noisy.png", "clean.png")]
        for name, side in zip(names, sides, strict=True):
            Image.fromarray((side * 255).round().astype("uint8")).save(name)
        found["SSIMULACRA 2, ssimulacra2 (Python)"] = partial(compute_ssimulacra2, *names)
    return found


if __name__ == "__main__":
    main()
