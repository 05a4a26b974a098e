"""``attacker-metrics evaluate``: score pairs, alone or together with other processes, and report."""

from attacker_metrics.evaluation.options import EvaluateOptions


_DEFAULTS = EvaluateOptions()


def evaluate(options: EvaluateOptions = _DEFAULTS) -> int:
    """Score pairs of images and write a report.

    Scores pairs of noisy and clean images after every attacker's post-processing. Without images it evaluates four built-in
    photographs under six built-in obfuscations. Processes of torchrun share the work.
    """
    from attacker_metrics.report import evaluated

    return evaluated.evaluate(options)


EPILOGUE = """Examples:
  attacker-metrics evaluate --clean originals/ --noisy sent/ --output report/
  attacker-metrics evaluate --manifest pairs.csv --suite standard-v1 --learned all --fail-above read=0.05

Exit status: 0 all fine, 1 some pairs failed, 2 bad usage or nothing could be written, 3 a --fail-above limit was exceeded, \
130 or 143 interrupted (--resume continues)."""
