"""Labels that the shared gradient gives away."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from attacker_metrics._warnings import AttackerMetricsWarning
from attacker_metrics.attacks.client_gradient import Gradients

_CLEAR = 2.0
"""How much lower than noise, told by what cannot be below 0, a label's bias gradient has to be."""
_ONE_SIDED = 0.1
"""Share of the cubes' sum by which one class stands out of all others."""
_SEEN = 3.0
"""How many standard deviations of the noise a row's sum has to have."""
_NOTHING = 1e-6
"""Share of the largest value below which a value's sign says nothing."""


def infer_labels(model: nn.Module, gradients: Gradients, group: int = 1, classes: int | None = None) -> Tensor:
    """Read the labels off the last fully connected layer's gradient.

    Under softmax cross entropy the gradient of that layer's bias is ``p - 1`` for the label and ``p`` for every other class:
    of one image exactly the label's is negative, whatever the network before it. Of B images a class's is its mean ``p``
    minus the share of images that have it: the lowest is taken, 1 / B added to it, and so on, which also finds labels that
    come more than once as long as no mean ``p`` reaches 1 / B.

    Without a bias, or where a defence has drowned or withheld its gradient, the rows of the weight's speak. Of one image
    they are ``p - 1`` or ``p`` times the layer's input: the label's points against all others and is the longest. Of several
    images the labels are then taken to differ: the classes whose rows have the lowest values, which is right where the
    layer's input is not negative (after ReLU or sigmoid).

    Args:
        model: whose last ``nn.Linear`` gives the logits.
        gradients: name -> ``(N, ...)``.
        group: images per client, B.
        classes: number of logits, to be compared with that layer's outputs.

    Returns:
        ``(N, B)``, integers; of several images in no particular order. Where nothing tells (the gradient is 0, or there are
        two classes, no bias, and inputs of both signs) they are guesses, and one ``AttackerMetricsWarning`` says so.

    Raises:
        ValueError: if the network has no fully connected layer, the last one's gradient was not shared (it is frozen), or
            it does not give the logits, or there are fewer classes than images.

    Source: Zhao et al., "iDLG: Improved Deep Leakage from Gradients", 2020; for several images, Wainakh et al., "User-Level
    Label Leakage from Gradients in Federated Learning", PoPETs 2022, and without a bias, Yin et al., "See through Gradients:
    Image Batch Recovery via GradInversion", CVPR 2021.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    last = names[-1] if names else ""
    if not names or not {f"{last}.weight", f"{last}.bias"} & gradients.keys():
        raise ValueError(
            "labels cannot be inferred: no gradient of a last nn.Linear layer was shared; attack with labels='known'."
        )
    weight, bias = gradients.get(f"{last}.weight"), gradients.get(f"{last}.bias")
    rows = [part.flatten(2) if part.ndim > 2 else part[:, :, None] for part in (weight, bias) if part is not None]
    outputs = rows[0].shape[1]
    if classes not in (None, outputs):
        raise ValueError(
            f"labels cannot be inferred: the last nn.Linear has {outputs} outputs, the network {classes} logits;"
            " attack with labels='known'."
        )
    if outputs < group:
        raise ValueError(f"{group} different labels cannot be inferred of {outputs} classes; use labels='known'.")
    found, told = [], []
    for client in range(len(rows[0])):
        labels, sure = _of_client([part[client].cpu().double() for part in rows], bias is not None, group)
        found.append(labels)
        told.append(sure)
    if not all(told):
        warnings.warn(
            f"the labels of {told.count(False)} of {len(told)} clients cannot be told from their gradients and are guesses;"
            " attack with labels='known' or 'optimised'.",
            AttackerMetricsWarning,
            stacklevel=2,
        )
    return torch.stack(found).to(rows[0].device)


def _of_client(parts: list[Tensor], has_bias: bool, group: int) -> tuple[Tensor, bool]:
    """Labels ``(B,)`` of one client's rows ``(K, ...)``, and whether they are more than a guess."""
    if not any(bool(part.any()) for part in parts):
        return torch.arange(group), False
    if has_bias and bool(parts[-1].any()):
        labels, clear = _by_bias(parts[-1][:, 0], group)
        if clear or len(parts) == 1:
            return labels, clear
        if group == 1 and len(parts[0]) == 2:  # only the bias has a sign that does not depend on the layer's input
            return labels, True
    if group > 1:
        return parts[0].amin(dim=1).argsort(stable=True)[:group], True
    return _by_direction(parts[0])


def _by_bias(gradient: Tensor, group: int) -> tuple[Tensor, bool]:
    left, taken, values = gradient.clone(), [], []
    for _ in range(group):
        label = int(left.argmin())
        taken.append(label)
        values.append(float(left[label]))
        left[label] += 1 / group
    # Below -1 nothing can be, and what is left not below 0: if it is, it is so by the noise of a defence.
    noise = max(0.0, -float(left.min()))
    return torch.tensor(taken), -1.01 <= min(values) <= max(values) < -_CLEAR * noise


def _by_direction(rows: Tensor) -> tuple[Tensor, bool]:
    """The label of one image: rows are one direction times ``p - 1`` or ``p``, of which one value is negative."""
    sums, (count, width) = rows.sum(dim=1), rows.shape
    squares, vectors = torch.linalg.eigh(rows @ rows.T)
    noise = (float(squares[:-1].clamp_min(0).sum()) / rows.numel()) ** 0.5
    if count > 2 and float(squares[-1]) ** 0.5 > _CLEAR * noise * (count**0.5 + width**0.5):
        values = vectors[:, -1]
        values = torch.where(values.abs() > _NOTHING * values.abs().max(), values, 0.0)
        negative, positive = int((values < 0).sum()), int((values > 0).sum())
        if min(negative, positive) == 1 < max(negative, positive):
            return (values if negative == 1 else -values).argmin()[None], True
        cubes = values.pow(3)
        if abs(cubes.sum()) > _ONE_SIDED * cubes.abs().sum():
            return (values * -cubes.sum()).argmin()[None], True
    # Noise hides the direction, or two classes have all the weight: sums tell, where no input of the layer is negative.
    label = sums.argmin()
    one_sided = bool((rows >= 0).all(dim=1).any() or (rows <= 0).all(dim=1).any())
    return label[None], bool(sums[label] < 0) and (one_sided or float(-sums[label]) > _SEEN * noise * width**0.5 > 0)
