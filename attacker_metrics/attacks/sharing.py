"""What clients of federated learning share: the gradients of their images, after whatever defends them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacker_metrics.attacks.client_gradient import ClientGradient, Gradients, batch_norm_mode, per_client
from attacker_metrics.attacks.threat_model import ThreatModel, checkpoint_digest, digest

Defense = Callable[[Gradients, torch.Generator], Gradients]
"""Maps the gradients of a client, name -> ``(1, ...)``, to those that are shared."""


@dataclass(frozen=True, eq=False)
class SharedGradients:
    """The gradients of N clients, and the terms on which they were shared. Holds no pixel.

    ``shared[3:5]`` or ``shared[[0, 7]]`` are the gradients of some of them.

    Args:
        gradients: parameter name -> ``(N, *shape of the parameter)``.
        labels: the true ones, ``(N, B)``; an attack reads them only if its threat model says that labels are known.
        image_shape: ``(C, H, W)``.
        grouped: whether images came as ``(N, B, C, H, W)``; reconstructions come back likewise.
        train: whether batch norm used the client's own statistics.
        clients: a number for every client, by which its draws are seeded, whoever else is attacked along with it.
        threat_model: the terms so far.
    """

    gradients: Gradients
    labels: Tensor
    image_shape: tuple[int, int, int]
    grouped: bool
    train: bool
    clients: tuple[int, ...]
    threat_model: ThreatModel

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: slice | Sequence[int]) -> SharedGradients:
        rows = list(range(len(self)))[which] if isinstance(which, slice) else [range(len(self))[row] for row in which]
        return dataclasses.replace(
            self,
            gradients={name: gradient[rows] for name, gradient in self.gradients.items()},
            labels=self.labels[rows],
            clients=tuple(self.clients[row] for row in rows),
            threat_model=dataclasses.replace(self.threat_model, views=tuple(self.threat_model.views[row] for row in rows)),
        )

    @property
    def group(self) -> int:
        """Images per client, B."""
        return self.labels.shape[1]


def share_gradients(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    train: bool = False,
    defenses: Sequence[Defense] = (),
    seed: int = 0,
    epoch: int | None = None,
    clients: Sequence[int] | None = None,
) -> SharedGradients:
    """What N independent clients share: each the gradient of the mean cross entropy of its own image or images.

    Args:
        model: a classifier of images in [0, 1]: normalisation is its first layer. It is copied, not changed; dropout is off.
            It returns logits ``(B, K)``, alone or as ``logits`` of an object or a dict.
        images: ``(N, C, H, W)``, one per client, or ``(N, B, C, H, W)``, B per client; the exact views that go in.
        labels: ``(N,)`` or ``(N, B)``, integers.
        train: whether batch norm uses the statistics of the client's own images instead of the running ones.
        defenses: applied to each client's gradients in turn, such as those of :mod:`attacker_metrics.defenses`.
        seed: of the defences' draws, which do not depend on how many clients there are.
        epoch: of the checkpoint, for the record.
        clients: numbers of the clients, by default 0 ... N - 1; give them where one set is shared in several calls.

    Returns:
        Gradients on the model's device, without a graph, and the threat model so far.

    Raises:
        TypeError: if images are not floating or labels not integers.
        ValueError: for other shapes, pixels outside [0, 1], labels that are no classes of the model, a model without clear
            logits, batch norm of a single value, or a gradient that is not finite.

    Example:
        >>> from attacker_metrics.attacks import SigmoidLeNet
        >>> shared = share_gradients(SigmoidLeNet(size=8), torch.rand(2, 3, 8, 8), torch.tensor([3, 1]))
        >>> len(shared), shared.threat_model.gradient
        (2, 'mean cross entropy of 1 image, 8 tensors, 8626 values')
    """
    _check(images, labels)
    grouped = images.ndim == 5
    views = images if grouped else images[:, None]
    targets = labels.reshape(views.shape[:2])
    client_gradient = ClientGradient(model, train=train)
    reference = next(iter(client_gradient.parameters.values()))
    inputs, targets = views.detach().to(reference), targets.to(reference.device, torch.int64)
    with torch.no_grad():
        classes = client_gradient.logits(inputs[0]).shape[-1]
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must be from 0 to {classes - 1}, the model's classes; got {low} to {high}.")
    raw: Gradients = per_client(lambda x, y: client_gradient(x, y)[0], inputs, targets)
    for name, gradient in raw.items():
        if not bool(gradient.isfinite().all()):
            raise ValueError(f"the gradient of {name!r} is not finite; look at the network's weights.")
    numbers = tuple(range(len(views)) if clients is None else clients)
    if len(numbers) != len(views):
        raise ValueError(f"clients must number each of the {len(views)} clients, got {len(numbers)}.")
    gradients = _defended(raw, defenses, [generator("share", seed, number) for number in numbers])
    count, values = len(gradients), sum(gradient[0].numel() for gradient in gradients.values())
    group = views.shape[1]
    threat_model = ThreatModel(
        gradient=f"mean cross entropy of {group} image{'s' * (group > 1)}, {count} tensors, {values} values",
        batch_norm=batch_norm_mode(model, train=train),
        epoch=epoch,
        checkpoint=checkpoint_digest(model),
        defenses=tuple(map(repr, defenses)),
        views=tuple(digest(view) for view in views),
        view_shape=tuple(views.shape[1:]),
    )
    channels, height, width = views.shape[2:]
    return SharedGradients(gradients, targets, (channels, height, width), grouped, train, numbers, threat_model)


def generator(*key: object) -> torch.Generator:
    """Draws that depend on a key only (on a CPU, so that every device sees the same)."""
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1
    return torch.Generator().manual_seed(seed)


def _defended(gradients: Gradients, defenses: Sequence[Defense], generators: Sequence[torch.Generator]) -> Gradients:
    if not defenses:
        return gradients
    shared = []
    for row, draws in enumerate(generators):
        one = {name: gradient[row : row + 1] for name, gradient in gradients.items()}
        for defense in defenses:
            one = defense(one, draws)
        shared.append(one)
    return {name: torch.cat([one[name] for one in shared]) for name in gradients}


def _check(images: Tensor, labels: Tensor) -> None:
    if not images.is_floating_point():
        raise TypeError(f"images must be floating in [0, 1], got {images.dtype}; convert uint8 by images / 255.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers, got {labels.dtype}.")
    if images.ndim not in (4, 5) or images.numel() == 0:
        raise ValueError(f"images must be (N, C, H, W) or (N, B, C, H, W), N at least 1; got {tuple(images.shape)}.")
    expected = tuple(images.shape[: images.ndim - 3])
    if tuple(labels.shape) != expected:
        raise ValueError(f"labels of images {tuple(images.shape)} must be {expected}, got {tuple(labels.shape)}.")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"images must lie in [0, 1], got [{low:.3g}, {high:.3g}]; normalisation belongs into the model.")
