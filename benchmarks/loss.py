"""The loss beside the same fifteen components composed from peers' calls: time, memory, agreement.

python benchmarks/loss.py [--quick] [--threads N] [--compile] [--device cuda] [--output DIR]
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import frame
import skimage.data
import torch
import torch.nn.functional as F
from compositions import COMPOSITIONS, PEERS, Loss
from torch import Tensor

from attacker_metrics import multi_attacker_privacy_loss

OURS, COMPILED = "attacker_metrics", "attacker_metrics, compiled"
SHAPES = ((1, 3, 224, 224), (8, 3, 224, 224), (4, 3, 512, 512))
QUICK_SHAPES = ((1, 3, 176, 176),)
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
AGREEMENT_SHAPE = (4, 3, 224, 224)
ROUNDS, QUICK_ROUNDS, BUDGET_S = 15, 3, 40.0
TOLERANCE = 1e-5
Shape = tuple[int, int, int, int]


def main() -> None:
    options = arguments()
    frame.prepare(options.threads)
    shapes, rounds = (QUICK_SHAPES, QUICK_ROUNDS) if options.quick else (SHAPES, ROUNDS)
    names = [OURS, *([COMPILED] if options.compile else []), *COMPOSITIONS]
    missing = [name for name in PEERS if name not in COMPOSITIONS]
    agreed = agreement(QUICK_SHAPES[0] if options.quick else AGREEMENT_SHAPE, options.device)
    print(agreement_table(agreed) + "\n", flush=True)
    cases = []
    for shape in shapes:
        for backward in (True,) if options.quick else (False, True):
            factories = {name: partial(make_step, name, shape, backward, options.device) for name in names}
            steps = {name: factory() for name, factory in factories.items()}
            results = frame.summarise(frame.interleave(steps, rounds=rounds, budget_s=BUDGET_S), OURS)
            for name, factory in factories.items():
                results[name]["peak_bytes"] = frame.peak_memory(factory, options.threads)
            case = {"shape": shape, "pass": "forward + backward" if backward else "forward", "results": results}
            cases.append(case)
            print(timing_table([case]) + "\n", flush=True)
    if missing:
        print("Not installed, so left out: " + ", ".join(missing))
    name = "loss" + ("-quick" if options.quick else "") + (f"-{options.device}" if options.device != "cpu" else "")
    if options.output or not options.quick:
        payload = {"baseline": OURS, "missing": missing, "agreement": agreed, "cases": cases}
        print(f"wrote {frame.save(name, payload, options.output or frame.RESULTS).name}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="one small shape, forward + backward, 3 rounds; written only with --output"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    parser.add_argument("--compile", action="store_true", help="also ours under torch.compile")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="folder of the JSON file (default: benchmarks/results)")
    return parser.parse_args()


def photographs(shape: Shape, device: str) -> tuple[Tensor, Tensor]:
    """Central squares of photographs, resized, and the same with Gaussian noise (sigma 0.2, not clipped)."""
    clean = torch.empty(shape)
    for i in range(shape[0]):
        picture = getattr(skimage.data, PHOTOGRAPHS[i % 4])()
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        side = min(pixels.shape[-2:])
        top, left = (pixels.shape[-2] - side) // 2, (pixels.shape[-1] - side) // 2
        square = pixels[..., top : top + side, left : left + side]
        image = F.interpolate(square, shape[-2:], mode="bilinear", antialias=True)[0]
        clean[i] = image if i % 8 < 4 else image.flip(-1)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return (clean + 0.2 * noise).to(device), clean.to(device)


def contender(name: str) -> Loss:
    if name == COMPILED:
        compiled: Loss = torch.compile(multi_attacker_privacy_loss)
        return compiled
    return multi_attacker_privacy_loss if name == OURS else COMPOSITIONS[name]


def make_step(name: str, shape: Shape, backward: bool, device: str) -> frame.Step:
    """A training step's share: the forward, and the gradient with respect to the noisy images."""
    loss = contender(name)
    noisy, clean = photographs(shape, device)
    return partial(value_and_gradient, loss, noisy, clean) if backward else partial(value, loss, noisy, clean)


@torch.no_grad()
def value(loss: Loss, noisy: Tensor, clean: Tensor) -> dict[str, Tensor]:
    return loss(noisy, clean)


def value_and_gradient(loss: Loss, noisy: Tensor, clean: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    leaf = noisy.detach().requires_grad_()
    values = loss(leaf, clean)
    (gradient,) = torch.autograd.grad(values["ms_ssim"] + values["pearson"], leaf)
    return values, gradient


def agreement(shape: Shape, device: str) -> dict[str, Any]:
    """Largest difference of a value, and relative L2 difference of the gradient, between every peer and ours.

    Raises:
        AssertionError: if torchmetrics, whose numbers ours must reproduce, differs by more than 1e-5.
    """
    noisy, clean = photographs(shape, device)
    ours, ours_gradient = value_and_gradient(multi_attacker_privacy_loss, noisy, clean)
    peers = {}
    for name, loss in COMPOSITIONS.items():
        values, gradient = value_and_gradient(loss, noisy, clean)
        differences = {key: abs(values[key] - ours[key]).item() for key in ours}
        worst = max(differences, key=lambda key: differences[key])
        relative = ((gradient - ours_gradient).norm() / ours_gradient.norm()).item()
        peers[name] = {
            "largest_difference": differences[worst],
            "component": worst,
            "gradient_relative_difference": relative,
        }
    assert peers["torchmetrics"]["largest_difference"] <= TOLERANCE, peers["torchmetrics"]
    return {"shape": shape, "peers": peers}


def agreement_table(agreed: dict[str, Any]) -> str:
    rows = [
        [name, f"{row['largest_difference']:.1e} ({row['component']})", f"{row['gradient_relative_difference']:.1e}"]
        for name, row in agreed["peers"].items()
    ]
    return frame.markdown(["peer", "largest difference of a value", "relative difference of the gradient"], rows)


def timing_table(cases: list[dict[str, Any]]) -> str:
    rows = [
        [
            "x".join(map(str, case["shape"])),
            case["pass"],
            name,
            frame.cell(row["wall_s"], 1e3),
            frame.cell(row["wall_s"]["ratio"], digits=2),
            frame.cell(row["cpu_s"]["ratio"], digits=2),
            "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}",
            str(row["rounds"]),
        ]
        for case in cases
        for name, row in case["results"].items()
    ]
    return frame.markdown(["shape", "pass", "contender", "ms", "ratio", "CPU time ratio", "peak MiB", "rounds"], rows)


if __name__ == "__main__":
    main()
