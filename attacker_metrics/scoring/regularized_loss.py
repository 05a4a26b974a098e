"""Task loss and privacy loss in one: :class:`PrivacyRegularizedLoss`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from attacker_metrics._settings import number
from attacker_metrics._transforms import transforming
from attacker_metrics.scoring.loss import MultiAttackerPrivacyLoss, PreparedClean

Schedule = Callable[[int], float]


class PrivacyRegularizedLoss(nn.Module):
    r"""A task's loss and the privacy loss, :math:`(1 - \alpha)\,\mathrm{task} + \alpha\,\mathrm{privacy}`.

    Both parts are always evaluated and stay in the graph, so that under DDP every parameter gets a gradient, be it 0. After
    each call :attr:`components` holds ``total``, ``task``, ``privacy`` and the privacy loss's components, detached.

    Args:
        task: the task's loss, called with what follows the images; its result is a scalar.
        privacy: the privacy loss; by default :class:`~attacker_metrics.MultiAttackerPrivacyLoss` with its defaults.
        alpha: in [0, 1]; 0 = task only, 1 = privacy only. Or a schedule, from the training step to such a number.
            The step is yours to pass, so that there is no counter to save and to restore. It is a constant: a tensor that
            requires a gradient is refused.

    Raises:
        ValueError: if ``alpha`` is not in [0, 1].
        TypeError: if ``privacy`` is no :class:`~attacker_metrics.MultiAttackerPrivacyLoss`, or ``task`` cannot be called.

    Example:
        >>> import torch
        >>> loss = PrivacyRegularizedLoss(torch.nn.CrossEntropyLoss(), alpha=lambda step: min(0.5, step / 1000))
        >>> clean, logits, labels = torch.rand(2, 3, 176, 176), torch.zeros(2, 10), torch.tensor([3, 7])
        >>> value = loss(clean, clean, logits, labels, step=250)
        >>> {name: round(float(loss.components[name]), 2) for name in ("total", "task", "privacy", "ms_ssim")}
        {'total': 2.23, 'task': 2.3, 'privacy': 2.0, 'ms_ssim': 1.0}
    """

    def __init__(
        self,
        task: Callable[..., Tensor],
        privacy: MultiAttackerPrivacyLoss | None = None,
        *,
        alpha: float | Schedule = 0.5,
    ) -> None:
        super().__init__()
        if not callable(task):
            raise TypeError(f"task must be a loss that can be called, such as torch.nn.CrossEntropyLoss(), got {task!r}.")
        if not (privacy is None or isinstance(privacy, nn.Module)):
            raise TypeError(f"privacy must be a MultiAttackerPrivacyLoss or None, got {privacy!r}.")
        self.task = task
        self.privacy = MultiAttackerPrivacyLoss() if privacy is None else privacy
        self.alpha = alpha if callable(alpha) else _checked(alpha)
        self.components: dict[str, Tensor] = {}
        """``total``, ``task``, ``privacy`` and the privacy loss's components of the last batch, detached scalars."""

    def forward(self, noisy: Tensor, clean: Tensor | PreparedClean, *task_inputs: Any, step: int | None = None) -> Tensor:
        """Weigh the task's loss against the privacy loss.

        Args:
            noisy: noisy images ``(B, 3, H, W)``.
            clean: the originals, or what ``privacy.prepare`` made of them.
            task_inputs: what the task's loss is called with, such as logits and labels.
            step: the training step, for a schedule.

        Returns:
            A scalar.

        Raises:
            ValueError: if there is a schedule and no step, or it leaves [0, 1]; and as the two losses do.
        """
        task, privacy = self.task(*task_inputs), self.privacy(noisy, clean)
        alpha = self._alpha_at(step)
        total: Tensor = (1 - alpha) * task + alpha * privacy
        split = {"total": total, "task": task, "privacy": privacy}
        # Copies: `loss /= steps` must not change what is logged. Transforms of torch.func leave no value to keep.
        kept = {} if transforming() else {name: value.detach().clone() for name, value in split.items()}
        self.components = kept | self.privacy.components
        return total

    def _alpha_at(self, step: int | None) -> float:
        if not callable(self.alpha):
            return self.alpha
        if step is None:
            raise ValueError("alpha is a schedule: pass the training step, loss(..., step=step).")
        return _checked(self.alpha(step))


def _checked(alpha: float) -> float:
    return number("alpha", alpha, "lie in [0, 1] (0 = task only, 1 = privacy only)", least=0, most=1)
