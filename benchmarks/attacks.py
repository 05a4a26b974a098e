"""Gradient inversion: the published behaviour at real budgets, and iterations per second beside the breaching framework.

Pictures are 32 x 32 photographs (scikit-image's astronaut, chelsea, coffee and rocket, shrunk). Asserted: the closed form
of a fully connected first layer to 1e-4; DLG and iDLG on the sigmoid LeNet above 40 dB, the median picture; InvGrad on the
untrained sigmoid LeNet and on the untrained published ConvNet above 20 dB, the median picture; every picture above a flat
one of its mean colour. Speed: InvGrad on one image and on eight independent ones, which breaching attacks one after the
other; before the clock starts both must agree on the cost of a candidate.

    pip install -e '.[bench]'
    pip install --no-deps breaching hydra-core omegaconf 'antlr4-python3-runtime==4.9.*'   # and torchvision
    python benchmarks/attacks.py --only speed                     # six minutes on two cores, which nothing else may use
    python benchmarks/attacks.py --only quality                   # about an hour
    python benchmarks/attacks.py --quick --output /tmp/results    # two minutes, nothing asserted of InvGrad
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import statistics
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import frame
import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attacker_metrics.attacks import (
    DLG,
    IDLG,
    ConvNet,
    GradientInversion,
    InvertingGradients,
    Normalize,
    SharedGradients,
    SigmoidLeNet,
    first_layer_closed_form,
    share_gradients,
)
from attacker_metrics.attacks.costs import cosine_distance

SIDE = 32
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
LABELS = torch.tensor([3, 1, 7, 2])


def main() -> None:
    """Attack, measure, write JSON, assert."""
    parser = frame.parser(__doc__)
    parser.add_argument("--width", type=int, default=64, help="of the ConvNet; the published one has 64")
    parser.add_argument("--iterations", type=int, default=400, help="of InvGrad on the ConvNet")
    parser.add_argument("--only", choices=("quality", "speed"), help="one part only, to a file of its own")
    parser.add_argument("--quick", action="store_true", help="a tiny run")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, default=frame.RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.width, options.iterations = 4, 60
    frame.prepare(options.threads)
    payload: dict[str, Any] = {"options": {"width": options.width, "iterations": options.iterations, "quick": options.quick}}
    if options.only != "speed":
        payload["quality"] = {}
        for name, row in quality(options):
            print(name, row, flush=True)
            payload["quality"][name] = row
    if options.only != "quality":
        payload["speed"] = speed(options)
        print(table(payload["speed"]))
    print(frame.save(f"attacks-{options.only}" if options.only else "attacks", payload, options.output))
    if "quality" in payload:
        check(payload["quality"], quick=options.quick)


def pictures() -> Tensor:
    """Four photographs, ``(4, 3, 32, 32)``, float64 in [0, 1]."""
    squares = []
    for name in PHOTOGRAPHS:
        pixels = torch.from_numpy(getattr(skimage.data, name)().copy()).permute(2, 0, 1).double() / 255
        side = min(pixels.shape[1:])
        top, left = ((length - side) // 2 for length in pixels.shape[1:])
        square = pixels[None, :, top : top + side, left : left + side]
        squares.append(F.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False))
    return torch.cat(squares).clamp(0, 1)


def quality(options: Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each attack recovers, one after the other."""
    images = pictures()
    dense = nn.Sequential(Normalize(), nn.Flatten(), nn.Linear(3 * SIDE**2, 256), nn.ReLU(), nn.Linear(256, 10))
    shared = share_gradients(dense, images.float(), LABELS)
    error = (first_layer_closed_form(dense, shared) - images.float()).abs().max()
    lenet = SigmoidLeNet(size=SIDE).double()
    deep: dict[str, Any] = {"iterations": 300 if options.quick else 6000, "restarts": 1 if options.quick else 4}
    yield "closed form", {"largest_error": float(error)}
    yield "DLG, sigmoid LeNet, float64", attacked(DLG(**deep), lenet, images, LABELS)
    yield "iDLG, sigmoid LeNet, float64", attacked(IDLG(**deep), lenet, images, LABELS)
    attack = InvertingGradients(iterations=300 if options.quick else 1500, total_variation=0.02)
    yield "InvGrad, sigmoid LeNet", attacked(attack, SigmoidLeNet(size=SIDE), images.float(), LABELS)
    attack = InvertingGradients(iterations=options.iterations, learning_rate=0.1, total_variation=1e-6)
    convnet = ConvNet(width=options.width, size=SIDE)
    yield f"InvGrad, ConvNet{options.width}, untrained", attacked(attack, convnet, images.float(), LABELS)


def attacked(attack: GradientInversion, network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """PSNR per picture and what it took."""
    shared = share_gradients(network, images, labels)
    started = time.perf_counter()
    found = attack(network, shared, progress=True)
    seconds = time.perf_counter() - started
    errors = (found.images - images).square().flatten(1).mean(dim=1)
    flat = (images - images.mean(dim=(2, 3), keepdim=True)).square().flatten(1).mean(dim=1)
    return {
        "psnr_db": [round(value, 2) for value in (-10 * errors.log10()).tolist()],
        "flat_psnr_db": [round(value, 2) for value in (-10 * flat.log10()).tolist()],  # one colour, the right one
        "labels_right": int((found.labels == labels).sum()),
        "loss": found.loss.tolist(),
        "iterations": found.iterations.tolist(),
        "seconds": round(seconds, 1),
        "settings": found.threat_model.to_dict()["settings"],
    }


def check(rows: dict[str, dict[str, Any]], *, quick: bool) -> None:
    """Assert the published behaviour."""
    for name, row in rows.items():
        if name == "closed form":
            assert row["largest_error"] < 1e-4, row
        elif not quick:
            assert statistics.median(row["psnr_db"]) > (20 if name.startswith("InvGrad") else 40), row
            assert all(psnr > flat for psnr, flat in zip(row["psnr_db"], row["flat_psnr_db"], strict=True)), row


def speed(options: Namespace) -> dict[str, Any]:
    """Seconds of a run of InvGrad for one image and for eight, ours and breaching's, by network."""
    iterations = 3 if options.quick else 20
    images = torch.cat([pictures(), pictures().flip(-1)]).float()
    labels = torch.cat([LABELS, LABELS])
    networks: dict[str, nn.Module] = {
        "sigmoid LeNet": SigmoidLeNet(size=SIDE, normalize=Normalize()),
        f"ConvNet{options.width}": ConvNet(width=options.width, size=SIDE),
    }
    present = importlib.util.find_spec("breaching") is not None
    rows: dict[str, Any] = {
        "iterations": iterations,
        "breaching": importlib.metadata.version("breaching") if present else None,
    }
    for name, network in networks.items():
        for count in (1, 8):
            shared = share_gradients(network, images[:count], labels[:count])
            attack = InvertingGradients(iterations=iterations)
            steps: dict[str, frame.Step] = {"attacker_metrics": functools.partial(attack, network, shared)}
            if present:
                agree(network, shared, images[:1].flip(-2))
                steps["breaching"] = functools.partial(breach, network, shared, iterations)
            samples = frame.interleave(steps, rounds=15, budget_s=40)
            rows[f"{name}, {count} image{'s' * (count > 1)}"] = frame.summarise(samples, "attacker_metrics")
    return rows


def agree(network: nn.Module, shared: SharedGradients, candidate: Tensor) -> None:
    """Both frameworks give one candidate the same cost."""
    gradient = share_gradients(network, candidate, shared.labels[0]).gradients
    ours = cosine_distance({n: g[0] for n, g in gradient.items()}, {n: g[0] for n, g in shared.gradients.items()})
    attacker, _, data, normalize = breaching_attack(network, shared[:1], 1)
    attacker.objective.initialize(attacker.loss_fn, attacker.cfg.impl, None)
    model = without_normalization(network)
    theirs, _ = attacker.objective(model, data[0]["gradients"], normalize(candidate), data[0]["metadata"]["labels"])
    difference = abs(float(ours) - float(theirs.detach()))
    assert difference < 1e-5, difference


def breach(network: nn.Module, shared: SharedGradients, iterations: int) -> None:
    """Breaching's InvGrad on every client, one after the other."""
    for client in range(len(shared)):
        attacker, payload, data, _ = breaching_attack(network, shared[client : client + 1], iterations)
        attacker.reconstruct(payload, data, {})


def breaching_attack(network: nn.Module, shared: SharedGradients, iterations: int) -> tuple[Any, Any, Any, Normalize]:
    """Their attacker on our client's gradient; their networks take normalised pictures."""
    breaching = importlib.import_module("breaching")
    normalize = next(module for module in network.modules() if isinstance(module, Normalize))
    model = without_normalization(network)
    metadata = SimpleNamespace(
        shape=(3, SIDE, SIDE), mean=normalize.mean.flatten(), std=normalize.std.flatten(), modality="vision"
    )
    payload = [{"parameters": list(model.parameters()), "buffers": list(model.buffers()), "metadata": metadata}]
    about = {"num_data_points": 1, "labels": shared.labels[0], "local_hyperparams": None}
    gradients = [shared.gradients[name][0] for name, _ in network.named_parameters()]
    data = [{"gradients": gradients, "buffers": None, "metadata": about}]
    attacker = breaching.attacks.prepare_attack(model, nn.CrossEntropyLoss(), settings(iterations))
    return attacker, payload, data, normalize


@functools.cache
def settings(iterations: int) -> Any:
    """Their published settings of InvGrad."""
    breaching = importlib.import_module("breaching")
    return breaching.get_attack_config("invertinggradients", overrides=[f"optim.max_iterations={iterations}"])


def without_normalization(network: nn.Module) -> nn.Module:
    """The same layers and weights behind the normalisation."""
    assert isinstance(network, nn.Sequential)
    return nn.Sequential(*(layer for layer in network if not isinstance(layer, Normalize))).eval()


def table(rows: dict[str, Any]) -> str:
    """Iterations per second and ratios, as Markdown."""
    lines = []
    for name, contenders in rows.items():
        if isinstance(contenders, dict):
            cells = [f"{rows['iterations'] / row['wall_s']['median']:.2f}" for row in contenders.values()]
            theirs = contenders.get("breaching")
            ratio = frame.cell(theirs["wall_s"]["ratio"], digits=2) if theirs else "-"
            lines.append([name, *cells, *["-"] * (2 - len(cells)), ratio])
    header = ["InvGrad", "attacker_metrics, iterations/s", "breaching, iterations/s", "breaching's time / ours"]
    return frame.markdown(header, lines)


if __name__ == "__main__":
    main()
