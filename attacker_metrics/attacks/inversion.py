"""Gradient inversion: the one loop of all attacks. Cost, optimiser and priors are its parts."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from attacker_metrics._extras import missing_extra
from attacker_metrics.attacks.client_gradient import ClientGradient, Gradients, per_client
from attacker_metrics.attacks.costs import Cost, cosine_distance
from attacker_metrics.attacks.labels import infer_labels
from attacker_metrics.attacks.optimizers import Adam, Optimizer
from attacker_metrics.attacks.priors import LayerInput, Prior, batch_norm_statistics
from attacker_metrics.attacks.sharing import SharedGradients, generator
from attacker_metrics.attacks.threat_model import LabelKnowledge, ThreatModel, checkpoint_digest

_LOOK = 10
"""Iterations between two looks for finished clients; on a GPU a look waits for the device."""
_ADAM = Adam()
_PROGRESS = 1e-3
"""Share by which the loss has to fall to count as progress."""


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What an attack gives back.

    Args:
        images: in [0, 1], ``(N, C, H, W)``, or ``(N, B, C, H, W)`` where clients had groups.
        labels: ``(N,)`` or ``(N, B)``: known, inferred, or the most likely ones.
        loss: what the attack minimised, at these images before they were clamped, ``(N,)``; infinite where it never was
            finite.
        iterations: how many were run for each client, in all restarts, ``(N,)``.
        threat_model: the terms.
    """

    images: Tensor
    labels: Tensor
    loss: Tensor
    iterations: Tensor
    threat_model: ThreatModel


class _Best(NamedTuple):
    """The lowest loss of every client so far and where it was."""

    loss: Tensor
    variables: Tensor

    def updated(self, rows: Tensor, loss: Tensor, variables: Tensor) -> _Best:
        better = loss < self.loss[rows]
        return _Best(
            self.loss.index_copy(0, rows, torch.where(better, loss, self.loss[rows])),
            self.variables.index_copy(0, rows, torch.where(better[:, None], variables, self.variables[rows])),
        )


@dataclass(frozen=True, kw_only=True)
class GradientInversion:
    """Search for images whose gradient is the shared one, for every client on its own but all at once.

    Args:
        iterations: optimiser steps per restart, at most.
        restarts: from other random images; the lowest loss is kept, per client.
        seed: of the starts. A client's draws depend on it and the client's number, not on who is attacked along with it.
        labels: ``"known"``; ``"inferred"`` from the last layer's gradient; or ``"optimised"``: soft labels are searched for
            together with the images.
        knows_defenses: the attacker knows that what was shared as exactly 0 was withheld, and compares the rest only.
        tolerance: a client is finished, in this restart and all others, once its loss is no higher.
        patience: a client is finished with a restart once its loss has not fallen by 0.1 % in so many iterations; None runs
            all of them.
        boxed: whether images are clamped to [0, 1] after every step.
        start: mean and standard deviation of the pixels that the search starts from.
        precision: ``"bf16"`` runs the network's passes under autocast; costs, priors and images stay as they are. Measure
            before use: the cost is a small difference of gradients.
        cost: of the candidate's gradients and the shared ones, see :mod:`~attacker_metrics.attacks.costs`.
        optimizer: see :mod:`~attacker_metrics.attacks.optimizers`.
        priors: weight and prior, see :mod:`~attacker_metrics.attacks.priors`.

    Raises:
        ValueError: if a setting makes no sense.

    Example:
        An attack of your own:

        >>> from attacker_metrics.attacks import GradientInversion, SigmoidLeNet, share_gradients
        >>> from attacker_metrics.attacks.costs import squared_distance
        >>> from attacker_metrics.attacks.optimizers import Adam
        >>> from attacker_metrics.attacks.priors import total_variation
        >>> priors = ((1e-3, total_variation),)
        >>> attack = GradientInversion(iterations=5, cost=squared_distance, optimizer=Adam(0.05), priors=priors)
        >>> network = SigmoidLeNet(size=8)
        >>> found = attack(network, share_gradients(network, torch.rand(2, 3, 8, 8), torch.tensor([3, 1])))
        >>> found.images.shape, found.labels.tolist(), found.threat_model.labels
        (torch.Size([2, 3, 8, 8]), [3, 1], 'known')
    """

    iterations: int = 1000
    restarts: int = 1
    seed: int = 0
    labels: LabelKnowledge = "known"
    knows_defenses: bool = False
    tolerance: float = 0.0
    patience: int | None = None
    boxed: bool = True
    start: tuple[float, float] = (0.5, 0.25)
    precision: Literal["as given", "bf16"] = "as given"
    cost: Cost = cosine_distance
    optimizer: Optimizer = _ADAM
    priors: tuple[tuple[float, Prior], ...] = ()

    def __post_init__(self) -> None:
        for name in ("iterations", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience is {self.patience}; it must be at least 1, or None to run all iterations.")
        if self.labels not in ("known", "inferred", "optimised"):
            raise ValueError(f"labels is {self.labels!r}; it is 'known', 'inferred' or 'optimised'.")
        if self.precision not in ("as given", "bf16"):
            raise ValueError(f"precision is {self.precision!r}; it is 'as given' or 'bf16'.")
        mean, deviation = self.start
        if not (math.isfinite(mean) and 0 <= deviation < math.inf):
            raise ValueError(f"start is {self.start}; it is a mean and a standard deviation, 0 or more, both finite.")
        if math.isnan(self.tolerance):
            raise ValueError("tolerance is nan; it must be a number.")
        for weight, prior in self.priors:
            if not 0 <= weight < math.inf:
                raise ValueError(f"the weight of {prior.__name__} is {weight}; it must be 0 or more, and finite.")

    def _compose(self, cost: Cost, optimizer: Optimizer, *priors: tuple[float, Prior]) -> None:
        """Set the parts, for a subclass that has settings of its own for them."""
        for name, part in {"cost": cost, "optimizer": optimizer, "priors": priors}.items():
            object.__setattr__(self, name, part)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that defines the attack, as JSON can hold it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        priors = [[weight, prior.__name__] for weight, prior in self.priors]
        parts = {"cost": self.cost.__name__, "optimizer": repr(self.optimizer), "priors": priors, "start": list(self.start)}
        return fields | parts

    def __call__(
        self, model: nn.Module, shared: SharedGradients, *, progress: bool = False, device: torch.device | str | None = None
    ) -> Reconstruction:
        """Reconstruct the images of every client.

        Args:
            model: the network as the attacker knows it; copied, never changed.
            shared: from :func:`~attacker_metrics.attacks.share_gradients`.
            progress: whether to show a progress bar (needs rich, of the extra ``cli``).
            device: where to compute, by default where the gradients are; results lie there too.

        Raises:
            ValueError: if the gradients are not those of this network or of no client, or it lacks what a prior or label
                inference needs.
        """
        if len(shared) == 0:
            raise ValueError("there is no client to attack.")
        search = _Search(
            self, model, shared, torch.device(device) if device else next(iter(shared.gradients.values())).device
        )
        best = search.begin()
        iterations = torch.zeros(len(shared), dtype=torch.int64)
        with _bar(type(self).__name__, self.restarts * self.iterations, shown=progress) as advance:
            for restart in range(self.restarts):
                best = search.run(best, restart, iterations, advance)
        images, logits = search.split(best.variables)
        labels = search.labels if logits is None else logits.argmax(dim=2)
        images = images.clamp(0, 1)
        return Reconstruction(
            images=images if shared.grouped else images[:, 0],
            labels=labels if shared.grouped else labels[:, 0],
            loss=best.loss,
            iterations=iterations,
            threat_model=dataclasses.replace(
                shared.threat_model,
                labels=self.labels,
                knows_checkpoint=checkpoint_digest(model) == shared.threat_model.checkpoint,
                knows_defenses=self.knows_defenses,
                attack=type(self).__name__,
                settings=self.settings,
            ),
        )


class _Search:
    """One attack on one set of clients; variables are rows ``(N, D)``: pixels of B images and, if searched for, logits."""

    def __init__(self, attack: GradientInversion, model: nn.Module, shared: SharedGradients, device: torch.device) -> None:
        self.attack, self.shared, self.device = attack, shared, device
        self.target: Gradients = {name: gradient.to(device) for name, gradient in shared.gradients.items()}
        self.like = next(iter(self.target.values())).new_empty(0)
        self.client_gradient = ClientGradient(model, train=shared.train)
        parameters = self.client_gradient.parameters
        if {n: p.shape for n, p in parameters.items()} != {n: g.shape[1:] for n, g in self.target.items()}:
            raise ValueError("the shared gradients are not of this network: names or shapes of its parameters differ.")
        if any(prior is batch_norm_statistics for _, prior in attack.priors) and not self.client_gradient.running:
            raise ValueError(
                f"{type(attack).__name__} matches batch norm statistics, and the network keeps none; use InvertingGradients."
            )
        self.client_gradient.to(self.like)
        self.images_shape = (shared.group, *shared.image_shape)
        self.pixels = torch.Size(self.images_shape).numel()
        self.classes, labels = 0, shared.labels
        if attack.labels != "known":
            with torch.no_grad():
                classes = self.client_gradient.logits(self.like.new_zeros(self.images_shape)).shape[1]
            if attack.labels == "optimised":
                self.classes = classes
            else:
                labels = infer_labels(model, self.target, shared.group, classes)
        self.labels = labels.to(device)

    def begin(self) -> _Best:
        """Before the first restart."""
        start = self._start(0)
        return _Best(torch.full_like(start[:, 0], float("inf")), start)

    def run(self, best: _Best, restart: int, iterations: Tensor, advance: Callable[[int], None]) -> _Best:
        """One restart; counts the iterations of every client."""
        attack = self.attack
        rows = (best.loss > attack.tolerance).nonzero()[:, 0]
        if len(rows) == 0:
            advance(attack.iterations)
            return best
        variables = self._start(restart)[rows]
        optimizer = attack.optimizer.start(variables, attack.iterations)
        lowest = torch.full_like(variables[:, 0], float("inf"))
        since = torch.zeros_like(rows)
        for done in range(1, attack.iterations + 1):
            loss, gradient = self._loss(variables, rows)
            best = best.updated(rows, loss, variables)
            progressed = loss < lowest * (1 - _PROGRESS)
            lowest, since = torch.where(progressed, loss, lowest), torch.where(progressed, 0, since + 1)
            variables = optimizer.step(variables, gradient)
            if attack.boxed:
                variables = torch.cat([variables[:, : self.pixels].clamp(0, 1), variables[:, self.pixels :]], dim=1)
            iterations[rows.cpu()] += 1
            advance(1)
            if done % _LOOK == 0:
                alive = loss.isfinite() & (loss > attack.tolerance)
                if attack.patience is not None:
                    alive &= since < attack.patience
                if not bool(alive.all()):
                    kept = alive.nonzero()[:, 0]
                    if len(kept) == 0:
                        advance(attack.iterations - done)
                        break
                    optimizer.keep(kept)
                    rows, variables, lowest, since = rows[kept], variables[kept], lowest[kept], since[kept]
        return best

    def split(self, variables: Tensor) -> tuple[Tensor, Tensor | None]:
        """Rows ``(N, D)`` -> images ``(N, B, C, H, W)`` and logits ``(N, B, K)``, if labels are searched for."""
        images = variables[:, : self.pixels].reshape(-1, *self.images_shape)
        logits = variables[:, self.pixels :].reshape(-1, self.shared.group, self.classes) if self.classes else None
        return images, logits

    def _start(self, restart: int) -> Tensor:
        """Random pixels, and random logits from a standard normal distribution, by the client's number."""
        mean, deviation = self.attack.start
        rows = []
        for client in self.shared.clients:
            draws = generator("attack", self.attack.seed, restart, client)
            pixels = mean + deviation * torch.randn(self.pixels, generator=draws, dtype=torch.float64)
            logits = torch.randn(self.shared.group * self.classes, generator=draws, dtype=torch.float64)
            rows.append(torch.cat([pixels.clamp(0, 1) if self.attack.boxed else pixels, logits]))
        return torch.stack(rows).to(self.like)

    def _loss(self, variables: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The loss ``(N,)`` of the clients in these rows and its gradient ``(N, D)``."""
        everyone = len(rows) == len(self.shared)
        target = self.target if everyone else {name: gradient[rows] for name, gradient in self.target.items()}
        variables = variables.detach().requires_grad_()
        images, logits = self.split(variables)
        labels = self.labels[rows] if logits is None else logits.softmax(dim=2)
        loss = per_client(self._client_loss, images, labels, target)
        (gradient,) = torch.autograd.grad(loss.sum(), variables)
        return loss.detach(), gradient

    def _client_loss(self, images: Tensor, labels: Tensor, target: Gradients) -> Tensor:
        attack = self.attack
        with torch.autocast(self.device.type, torch.bfloat16, enabled=attack.precision == "bf16"):
            gradients, features = self.client_gradient(images, labels)
        if attack.knows_defenses:
            gradients = {name: gradient * (target[name] != 0) for name, gradient in gradients.items()}
        loss = attack.cost(gradients, target)
        layers = self._layers(features)
        return loss + sum(weight * prior(images, layers) for weight, prior in attack.priors)

    def _layers(self, features: Gradients) -> Sequence[LayerInput]:
        # A layer that nothing went into, such as that of an auxiliary head, says nothing.
        running = self.client_gradient.running
        return [LayerInput(features[name], *running[name]) for name in running if name in features]


@contextlib.contextmanager
def _bar(title: str, total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    if not shown:
        yield lambda _: None
        return
    try:
        from rich.progress import Progress
    except ModuleNotFoundError as error:
        raise missing_extra("a progress bar needs rich", "cli", error) from error
    with Progress(transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)
