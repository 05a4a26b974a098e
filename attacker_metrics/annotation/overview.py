"""Answers -> what the study's owner wants to know: progress, agreement, attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from attacker_metrics.annotation.answers import Answer, annotation_table, main_answers, read_answers
from attacker_metrics.annotation.database import Annotator
from attacker_metrics.annotation.store import SAME, Store
from attacker_metrics.faithfulness.agreement import human_agreement
from attacker_metrics.faithfulness.annotations import Annotations


@dataclass(frozen=True)
class Share:
    """``hits`` of ``count``; no value where there is nothing to count."""

    hits: int
    count: int

    @property
    def value(self) -> float | None:
        """In [0, 1], or None."""
        return self.hits / self.count if self.count else None


@dataclass(frozen=True)
class AnnotatorFigures:
    """One annotator; repeats and catch trials count in their own columns only.

    Args:
        name: of the annotator.
        progress: trials answered, of all.
        recognized: the right category, or "same", of the answered items.
        cannot_tell: of the answered items.
        catch_right: catch trials answered rightly (a category task's: the original's class; a pair task's: "different").
        false_alarms: of a pair task's catch trials, those called "same"; without items in a category task.
        repeats_alike: repeats answered like the first time.
        median_seconds: per answer that counts; as the browser saw it where it told, else by the server's clock.
    """

    name: str
    progress: Share
    recognized: Share
    cannot_tell: Share
    catch_right: Share
    false_alarms: Share
    repeats_alike: Share
    median_seconds: float | None


@dataclass(frozen=True)
class Overview:
    """The owner's page.

    Args:
        annotators: each registered one.
        chance: what guessing recognises on average, in [0, 1]: one over the number of candidates, one half for pairs.
        common: how many items all annotators who voted have answered.
        fleiss_kappa: of the common items; None with fewer than two annotators, or where all answers are the same.
        krippendorff_alpha: of all items, nominal, recognised or not; None likewise.
    """

    annotators: tuple[AnnotatorFigures, ...]
    chance: float
    common: int
    fleiss_kappa: float | None
    krippendorff_alpha: float | None


def overview(store: Store) -> Overview:
    """Figures of what has been answered so far."""
    answers = [answer for answer in read_answers(store) if not answer.undone]
    common, kappa, alpha = 0, None, None
    if main_answers(answers):
        common, kappa, alpha = _agreement(annotation_table(store, answers))
    choices = [2 if store.settings.task == "pair" else len(item.candidates) for item in store.items]
    figures = [
        _figures(store, annotator, [answer for answer in answers if answer.annotator == annotator.name])
        for annotator in store.annotators()
    ]
    return Overview(tuple(figures), float(np.mean(1 / np.asarray(choices))), common, kappa, alpha)


def _agreement(table: Annotations) -> tuple[int, float | None, float | None]:
    """Fleiss' kappa needs items that everybody answered, Krippendorff's alpha takes what there is."""
    common = np.flatnonzero(~np.isnan(np.stack(list(table.judges.values()))).any(axis=0))
    # One draw: intervals of the correlations are for the analysis, not for a page that is looked at every minute.
    alpha = human_agreement(table, draws=1).krippendorff_alpha
    kappa = human_agreement(table, rows=common, draws=1).fleiss_kappa if common.size else None
    return len(common), kappa, alpha


def _figures(store: Store, annotator: Annotator, answers: Sequence[Answer]) -> AnnotatorFigures:
    kinds: dict[str, list[Answer]] = {"main": [], "repeat": [], "catch": []}
    for answer in answers:
        kinds[answer.kind].append(answer)
    main, catch = kinds["main"], kinds["catch"]
    first = {answer.item: answer.answer for answer in main}
    seconds = [answer.seconds if answer.visible_seconds is None else answer.visible_seconds for answer in answers]
    pairs = catch if store.settings.task == "pair" else []
    return AnnotatorFigures(
        name=annotator.name,
        progress=Share(len(answers), store.turn(annotator).total),
        recognized=_share(answer.right for answer in main),
        cannot_tell=_share(answer.answer is None for answer in main),
        catch_right=_share(answer.right for answer in catch),
        false_alarms=_share(answer.answer == SAME for answer in pairs),
        repeats_alike=_share(answer.answer == first[answer.item] for answer in kinds["repeat"] if answer.item in first),
        median_seconds=median(seconds) if seconds else None,
    )


def _share(hits: Iterable[bool]) -> Share:
    found = list(hits)
    return Share(sum(found), len(found))
