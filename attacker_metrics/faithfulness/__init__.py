"""Whether metrics agree with people: annotations, scores, correlations, the human ceiling, calibration, alignment.

Needs the extra ``faithfulness`` (SciPy, statsmodels, krippendorff, scikit-learn, pyarrow, matplotlib, rich).
"""

from attacker_metrics._extras import missing_extra

try:
    from attacker_metrics.faithfulness.agreement import HumanAgreement, human_agreement
    from attacker_metrics.faithfulness.alignment import Alignment, align
    from attacker_metrics.faithfulness.analysis import Comparison, Faithfulness, LevelResult, faithfulness
    from attacker_metrics.faithfulness.annotations import Annotations, read_annotations
    from attacker_metrics.faithfulness.calibration import Calibration, calibrate
    from attacker_metrics.faithfulness.scores import Scores, pair, read_scores
    from attacker_metrics.faithfulness.tables import TableError
except ModuleNotFoundError as error:
    raise missing_extra(f"attacker_metrics.faithfulness needs {error.name}", "faithfulness", error) from error

__all__ = [
    "Alignment",
    "Annotations",
    "Calibration",
    "Comparison",
    "Faithfulness",
    "HumanAgreement",
    "LevelResult",
    "Scores",
    "TableError",
    "align",
    "calibrate",
    "faithfulness",
    "human_agreement",
    "pair",
    "read_annotations",
    "read_scores",
]
