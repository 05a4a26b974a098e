"""``attacker-metrics evaluate``: score pairs, alone or together with other processes, and report."""

from cyclopts import App

from attacker_metrics.commands.parsing import add_command
from attacker_metrics.evaluation.options import EvaluateOptions

_DEFAULTS = EvaluateOptions()


def add(app: App) -> None:
    """Add the command."""
    add_command(
        app,
        evaluate,
        "Examples:",
        "  attacker-metrics evaluate --clean originals/ --noisy sent/ --output report/",
        "  attacker-metrics evaluate --manifest pairs.csv --suite standard-v1 --learned all",
        "  attacker-metrics evaluate --manifest pairs.csv --null 20000 --fail-above read=0.05",
        "",
        "Exit status: 0 all fine, 1 some pairs failed, 2 bad usage or nothing could be written, 3 a --fail-above limit was"
        " exceeded, 130 or 143 interrupted (--resume continues).",
    )


def evaluate(options: EvaluateOptions = _DEFAULTS) -> int:
    """Score pairs of images and write a report.

    Noisy images are compared with clean ones after every attacker's post-processing. Without images, four built-in
    photographs under six built-in obfuscations are evaluated. Processes of torchrun share the work.
    """
    from attacker_metrics.report import evaluated

    return evaluated.evaluate(options)
