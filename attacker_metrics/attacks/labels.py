"""Labels that the shared gradient gives away."""

from __future__ import annotations

from torch import Tensor, nn

from attacker_metrics.attacks.client_gradient import Gradients


def infer_labels(model: nn.Module, gradients: Gradients, group: int = 1, classes: int | None = None) -> Tensor:
    """Read the labels off the last fully connected layer's gradient.

    Under cross entropy the gradient of a row is ``p - 1`` times the layer's input for the true class, ``p`` times it for
    every other. Where the input is not negative (after ReLU or sigmoid) only the true class has a negative row: of one
    image the label is the class with the lowest row sum. Of several images the labels are taken to differ: the classes
    whose rows have the lowest values, lowest first, which need not be their order in the client's batch.

    Args:
        model: whose last ``nn.Linear`` gives the logits.
        gradients: name -> ``(N, ...)``.
        group: images per client, B.
        classes: number of logits, to be compared with that layer's outputs.

    Returns:
        ``(N, B)``, integers.

    Raises:
        ValueError: if the network has no fully connected layer, the last one's gradient was not shared (it is frozen), or
            it does not give the logits, or there are fewer classes than images.

    Source: Zhao et al., "iDLG: Improved Deep Leakage from Gradients", 2020; for several images, Yin et al., "See through
    Gradients: Image Batch Recovery via GradInversion", CVPR 2021.
    """
    names = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not names or names[-1] not in gradients:
        raise ValueError(
            "labels cannot be inferred: no gradient of a last nn.Linear layer was shared; attack with labels='known'."
        )
    rows = gradients[names[-1]]
    if classes not in (None, rows.shape[1]):
        raise ValueError(
            f"labels cannot be inferred: the last nn.Linear has {rows.shape[1]} outputs, the network {classes} logits;"
            " attack with labels='known'."
        )
    if rows.shape[1] < group:
        raise ValueError(f"{group} different labels cannot be inferred of {rows.shape[1]} classes; use labels='known'.")
    # Sums average the noise of a defence; the lowest values stand out of the rows of other images' classes.
    told = rows.sum(dim=2) if group == 1 else rows.amin(dim=2)
    return told.argsort(dim=1, stable=True)[:, :group]
