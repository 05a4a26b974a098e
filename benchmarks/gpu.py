"""The loss on a GPU beside its peers, the bandwidth of the device and a ResNet-50; exit status 1 if a promise is broken.

python benchmarks/gpu.py [--quick] [--device cuda|cpu] [--output DIR]

Per shape and dtype: forward + backward of ours by Triton and in torch, of the torchmetrics and the pytorch-msssim
composition; milliseconds, bytes that have to be moved per second over what a copy moves in the same run, peak memory,
launches. Then the share that the loss adds to a training step of ResNet-50 (needs torchvision), and MS-SSIM alone beside
fused-ssim's single scale, where that is installed. ``--quick`` is one small shape. On a CPU there is no Triton, launches are
not counted and nothing is promised: that only tries the script.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import frame
import loss
import torch
from compositions import COMPOSITIONS
from torch import Tensor

from attacker_metrics import multi_attacker_privacy_loss, safe_ms_ssim
from attacker_metrics._names import BACKEND_VARIABLE

SHAPES = ((64, 3, 224, 224), (16, 3, 512, 512), (4, 3, 1024, 1024))
PROMISED = SHAPES[:2]
BYTES = 673  # per image pixel: every plane written once per scale, read once, and one gradient; float32
OURS = "ours, triton"
AT_LEAST = {"torchmetrics": 20.0, "pytorch_msssim": 8.0}
AT_MOST = {"bytes": 2.0, "launches": 40, "resnet": 0.10}


def main() -> int:
    options = arguments()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device: --device cpu only tries this script.")
    frame.prepare(None)
    shapes = ((2, 3, 176, 176),) if options.quick else SHAPES
    rate = copy_rate(options.device, 2**24 if options.quick else 2**30)
    print(f"a copy moves {rate / 1e9:.0f} GB/s", flush=True)
    cases = [
        case(shape, dtype, options.device, rate, 3 if options.quick else 30)
        for shape in shapes
        for dtype in (torch.float32, torch.bfloat16)
    ]
    extras = {"resnet": resnet_share(shapes[0], options.device), "ms_ssim_alone_s": ms_ssim_alone(shapes[0], options.device)}
    broken = promises(cases, extras) if options.device == "cuda" and not options.quick else []
    print("\n".join(f"BROKEN {line}" for line in broken))
    if options.output or not options.quick:
        payload = {"copy_bytes_per_s": rate, "cases": cases, **extras, "broken": broken}
        print(f"wrote {frame.save('gpu', payload, options.output or frame.RESULTS).name}")
    return 1 if broken else 0


def arguments() -> argparse.Namespace:
    parser = frame.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one small shape; written only with --output")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--output", type=Path, help="folder of the JSON file (default: benchmarks/results)")
    return parser.parse_args()


def case(shape: loss.Shape, dtype: torch.dtype, device: str, rate: float, rounds: int) -> dict[str, Any]:
    """Every contender at one shape and dtype."""
    noisy, clean = (images.to(dtype) for images in loss.photographs(shape, device))
    ours = multi_attacker_privacy_loss
    contenders = {OURS: by("triton", ours), "ours, torch": by("torch", ours)} if device == "cuda" else {"ours": ours}
    contenders |= {name: found for name, found in COMPOSITIONS.items() if name != "piq"}
    steps: dict[str, frame.Step] = {
        name: partial(loss.value_and_gradient, contender, noisy, clean) for name, contender in contenders.items()
    }
    baseline = next(iter(steps))
    results = frame.summarise(frame.interleave(steps, rounds=rounds, budget_s=60), baseline)
    moved = BYTES * noisy.numel() / 3
    for name, step in steps.items():
        results[name]["over_copy"] = results[name]["wall_s"]["median"] * rate / moved
        if device == "cuda":
            results[name]["peak_bytes"], results[name]["launches"] = peak_bytes(step), launches(step)
        print(f"{shape} {dtype} {name}: {results[name]['wall_s']['median'] * 1e3:.2f} ms,", end=" ")
        print(
            f"{results[name]['over_copy']:.2f} x the bytes' time, {results[name].get('launches', '?')} launches", flush=True
        )
    return {"shape": shape, "dtype": str(dtype).removeprefix("torch."), "results": results}


def by(backend: str, function: Callable[..., dict[str, Tensor]]) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """A function of ours on one of its backends, which the environment names at every call."""

    def call(noisy: Tensor, clean: Tensor) -> dict[str, Tensor]:
        os.environ[BACKEND_VARIABLE] = backend
        return function(noisy, clean)

    return call


def copy_rate(device: str, size: int) -> float:
    """Bytes read and written per second by a copy of so many bytes, at best."""
    source, target = torch.empty(2, size, dtype=torch.uint8, device=device).unbind()
    return 2 * size / min(frame.timed(partial(target.copy_, source))["wall_s"] for _ in range(20))


def peak_bytes(step: frame.Step) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def launches(step: frame.Step) -> int:
    """Kernels, copies and fills that a step puts on the device."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    return sum(event.device_type.name == "CUDA" for event in profile.events())


def resnet_share(shape: loss.Shape, device: str) -> float | None:
    """Time that the loss adds to a training step of ResNet-50 under bfloat16 autocast, as a share of that step."""
    if not find_spec("torchvision"):
        print("Not installed, so left out: torchvision")
        return None
    import torchvision

    network = torchvision.models.resnet50(weights=None).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    noisy, clean = loss.photographs(shape, device)
    labels = torch.zeros(len(clean), dtype=torch.int64, device=device)
    offset = torch.zeros_like(clean).requires_grad_()

    def train(privacy: bool) -> None:
        sent = noisy + offset
        with torch.autocast(device, torch.bfloat16):
            value = torch.nn.functional.cross_entropy(network(sent), labels)
            if privacy:
                scores = multi_attacker_privacy_loss(sent, clean)
                value = value + scores["ms_ssim"] + scores["pearson"]
        optimizer.zero_grad()
        offset.grad = None
        torch.autograd.backward(value)
        optimizer.step()

    os.environ.pop(BACKEND_VARIABLE, None)
    steps: dict[str, frame.Step] = {"without": partial(train, False), "with": partial(train, True)}
    results = frame.summarise(frame.interleave(steps, rounds=30, budget_s=60), "without")
    share = float(results["with"]["wall_s"]["ratio"]["median"]) - 1
    print(f"the loss adds {share:.1%} to a step of ResNet-50", flush=True)
    return share


def ms_ssim_alone(shape: loss.Shape, device: str) -> dict[str, float]:
    """Seconds of forward + backward of MS-SSIM, and of fused-ssim's SSIM at the finest scale only."""
    noisy, clean = loss.photographs(shape, device)
    contenders: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ours, five scales": safe_ms_ssim}
    if find_spec("fused_ssim"):
        import fused_ssim

        contenders["fused-ssim, one scale"] = fused_ssim.fused_ssim

    def step(function: Callable[[Tensor, Tensor], Tensor]) -> None:
        leaf = noisy.detach().requires_grad_()
        torch.autograd.grad(function(leaf, clean), leaf)

    steps: dict[str, frame.Step] = {name: partial(step, function) for name, function in contenders.items()}
    results = frame.summarise(frame.interleave(steps, rounds=30, budget_s=30), "ours, five scales")
    return {name: row["wall_s"]["median"] for name, row in results.items()}


def promises(cases: list[dict[str, Any]], extras: dict[str, Any]) -> list[str]:
    """What does not hold, a line each; float32."""
    broken = []
    for found in cases:
        if tuple(found["shape"]) not in PROMISED or found["dtype"] != "float32":
            continue
        results, shape = found["results"], found["shape"]
        if results[OURS]["over_copy"] > AT_MOST["bytes"]:
            broken.append(f"{shape}: {results[OURS]['over_copy']:.2f} x the bytes' time, promised {AT_MOST['bytes']}")
        if results[OURS]["launches"] > AT_MOST["launches"]:
            broken.append(f"{shape}: {results[OURS]['launches']} launches, promised {AT_MOST['launches']}")
        for peer, wanted in AT_LEAST.items():
            ratio = results[peer]["wall_s"]["ratio"]["median"] if peer in results else None
            if ratio is None or ratio < wanted:
                measured = "not installed" if ratio is None else f"{ratio:.1f}"
                broken.append(f"{shape}: {peer} / ours {measured}, promised {wanted}")
    if extras["resnet"] is not None and extras["resnet"] > AT_MOST["resnet"]:
        broken.append(f"ResNet-50: {extras['resnet']:.1%} added, promised {AT_MOST['resnet']:.0%}")
    return broken


if __name__ == "__main__":
    sys.exit(main())
