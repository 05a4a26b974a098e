"""The steps of a study as units of work: train, attack, score, annotate, report."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from attacker_metrics.attacks import digest, share_gradients
from attacker_metrics.defenses import AugmentationPolicy
from attacker_metrics.files.spreadsheet import unescaped
from attacker_metrics.quality.metrics import LPIPS
from attacker_metrics.scoring.similarity import betas_for
from attacker_metrics.study.annotating import annotate_by_machines, copy_of_people, write_tasks
from attacker_metrics.study.classifiers import accuracy, build, check_batch_statistics, check_torchvision, load, weights_of
from attacker_metrics.study.config import Attack, Config, Defence, Model, Training
from attacker_metrics.study.data import TrainingImages, split
from attacker_metrics.study.files import (
    ANNOTATIONS,
    ATTACKED,
    CORRELATIONS,
    LEAKAGE,
    PICKS,
    REPORT,
    SCORES,
    SUMMARY,
    TASKS,
    THREAT_MODEL,
    Cell,
    image_files,
    image_names,
    read_images,
    read_json,
    write_csv,
    write_images,
    write_rows,
)
from attacker_metrics.study.machines import hog
from attacker_metrics.study.reporting import Subject, report
from attacker_metrics.study.scoring import score
from attacker_metrics.study.units import Unit, digest_of, write_file, write_json

STEPS = ("train", "attack", "score", "annotate", "report")
Waves = list[list[Unit]]


class Study:
    """A study's units of work.

    Args:
        config: its settings.
        images: its training images.
        device: where networks are trained and attacked.

    Attributes:
        waves: step -> units that can be done side by side, one list after the other.

    Raises:
        ValueError: if there are too few images, or a file that the settings name is not what it should be.
        OSError: if a file that the settings name cannot be read.
        ModuleNotFoundError: if an extra is missing, naming it.
    """

    def __init__(self, config: Config, images: TrainingImages, device: torch.device) -> None:
        _check_needs(config, images)
        self.config, self._device = config, device
        self._images = images
        self.training, self.validation, self._attacked = split(images, config)
        self.betas = config.scores.betas or betas_for(config.data.size)
        self.cells = tuple(
            Cell(model.name, defence.name, attack.title)
            for model in config.models
            for defence in config.defences
            for attack in config.attacks
        )
        data = self._data()
        classifiers = {(m.name, d.name): self._classifier(m, d, data) for m in config.models for d in config.defences}
        views = {defence.name: self._views(defence, data) for defence in config.defences}
        attacks = {
            Cell(m.name, d.name, a.title): self._attack(m, d, a, classifiers[m.name, d.name], views[d.name])
            for m in config.models
            for d in config.defences
            for a in config.attacks
        }
        parts = [self._score(cell, attacks[cell], views[cell.defence]) for cell in self.cells]
        table = self._table(parts)
        tasks = self._tasks([*attacks.values(), data])
        annotations = self._annotate([*attacks.values(), *views.values(), data], tasks)
        last = self._report(table, annotations, tasks, [*classifiers.values()], [*attacks.values()])
        self.waves: Mapping[str, Waves] = {
            "train": [[data], list(classifiers.values())],
            "attack": [list(views.values()), list(attacks.values())],
            "score": [parts, [table]],
            "annotate": [[tasks], [annotations]],
            "report": [[last]],
        }

    def _data(self) -> Unit:
        config, count = self.config, self.config.images

        def work(root: Path) -> dict[str, Any]:
            write_images(root, "originals", torch.stack([self._attacked[i][0] for i in range(count)]))
            rows = zip(image_names(count), self._attacked.names, self._attacked.labels, strict=True)
            listed = [
                {"image": image, "source": source, "class": self._attacked.classes[label], "label": label}
                for image, source, label in rows
            ]
            write_json(root / ATTACKED, {"classes": list(self._attacked.classes), "images": listed})
            return {
                "training": len(self.training),
                "validation": len(self.validation),
                "classes": len(self._attacked.classes),
            }

        settings = {
            "images": count,
            "size": config.data.size,
            "limit": config.data.limit,
            "validation": config.training.validation,
            "seed": config.seed,
        }
        files = (ATTACKED, *image_files("originals", count))
        return Unit("train", "data", settings, (), files, work, {"data": self._images.digest()})

    def _classifier(self, model: Model, defence: Defence, data: Unit) -> Unit:
        config, file, recipe = self.config, _classifier_file(model, defence), _recipe(model, self.config)

        def work(root: Path) -> dict[str, Any]:
            from attacker_metrics.study.training import train  # Lightning takes seconds to import

            classes, size = len(self.training.classes), config.data.size
            loss = None
            if model.weights is not None:
                network = load(model, model.weights.read_bytes(), classes, size)
            else:
                network = build(model, classes, size, config.seed)
                loss = train(
                    network,
                    self.training,
                    recipe,
                    seed=config.seed,
                    augment=_policy(defence),
                    share=[sharing.make() for sharing in defence.share],
                    device=self._device,
                )
            write_file(root / file, weights_of(network))
            return {
                "epochs": None if model.weights is not None else recipe.epochs,
                "loss": loss,
                "training_accuracy": accuracy(network, self.training, self._device),
                "validation_accuracy": accuracy(network, self.validation, self._device),
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
            }

        settings: dict[str, Any] = {"model": model.model_dump(mode="json", exclude={"weights", "epochs"})}
        sources = {}
        if model.weights is not None:
            sources["weights"] = _file_digest(model.weights, f"the weights of model {model.name}")
        else:
            settings |= {
                "training": recipe.model_dump(mode="json"),
                "defence": defence.model_dump(mode="json"),
                "seed": config.seed,
            }
        return Unit("train", f"{model.name}/{defence.name}", settings, (data,), (file,), work, sources)

    def _views(self, defence: Defence, data: Unit) -> Unit:
        config = self.config

        def work(root: Path) -> None:
            images = read_images(root, "originals")
            policy = _policy(defence)
            if policy is not None:
                draws = (torch.Generator().manual_seed(config.seed + number) for number in range(len(images)))
                images = torch.cat([policy(image[None], draw) for image, draw in zip(images, draws, strict=True)])
            write_images(root, f"views/{defence.name}", images)

        settings = {"augment": defence.augment, "seed": config.seed}
        files = image_files(f"views/{defence.name}", config.images)
        return Unit("attack", f"views/{defence.name}", settings, (data,), files, work)

    def _attack(self, model: Model, defence: Defence, attack: Attack, classifier: Unit, views: Unit) -> Unit:
        config, cell = self.config, Cell(model.name, defence.name, attack.title)

        def work(root: Path) -> dict[str, Any]:
            attacked = read_json(root / ATTACKED)
            images = read_images(root, f"views/{defence.name}").to(self._device)
            labels = torch.tensor([image["label"] for image in attacked["images"]], device=self._device)
            content = (root / _classifier_file(model, defence)).read_bytes()
            network = load(model, content, len(attacked["classes"]), config.data.size, own=True).to(self._device)
            found, losses, viewed, begin = [], [], [], time.perf_counter()
            for start in range(0, len(images), config.together):
                part = range(len(images))[start : start + config.together]
                shared = share_gradients(
                    network,
                    images[part.start : part.stop],
                    labels[part.start : part.stop],
                    train=config.batch_norm == "train",
                    defenses=[sharing.make() for sharing in defence.share],
                    seed=config.seed,
                    epoch=None if model.weights is not None else _recipe(model, config).epochs,
                    clients=part,
                )
                outcome = attack.make(config.seed)(network, shared)
                found.append(outcome.images.detach().cpu().float())
                losses += [float(value) for value in outcome.loss]
                viewed += outcome.threat_model.views
            write_images(root, cell.folder, torch.cat(found))
            write_json(root / cell.folder / THREAT_MODEL, {**outcome.threat_model.to_dict(), "views": viewed})
            return {"loss": [_json(value) for value in losses], "attack_seconds": round(time.perf_counter() - begin, 3)}

        settings = {
            "attack": attack.make(config.seed).settings,  # with its defaults: another release may have others
            "share": [repr(sharing.make()) for sharing in defence.share],
            "batch_norm": config.batch_norm,
            "together": config.together,
            "seed": config.seed,
        }
        files = (*image_files(cell.folder, config.images), f"{cell.folder}/{THREAT_MODEL}")
        return Unit("attack", f"{model.name}/{defence.name}/{attack.title}", settings, (classifier, views), files, work)

    def _score(self, cell: Cell, attack: Unit, views: Unit) -> Unit:
        config, file = self.config, f"{cell.folder}/scores.csv"

        def work(root: Path) -> None:
            found, attacked = read_images(root, cell.folder), read_images(root, f"views/{cell.defence}")
            _check_views(attacked, read_json(root / cell.folder / THREAT_MODEL)["views"], cell)
            columns = score(found, attacked, betas=self.betas, lpips=config.scores.lpips, semsim=config.scores.semsim)
            ids = [f"{cell.folder}/{name}.png" for name in image_names(config.images)]
            write_csv(root / file, {"reconstruction": ids, **columns})

        settings = {"betas": list(self.betas), "lpips": config.scores.lpips}
        checkpoint = config.scores.semsim
        sources = {} if checkpoint is None else {"semsim": _file_digest(checkpoint, "scores.semsim")}
        name = f"{cell.model}/{cell.defence}/{cell.attack}"
        return Unit("score", name, settings, (attack, views), (file,), work, sources)

    def _table(self, parts: list[Unit]) -> Unit:
        def work(root: Path) -> None:
            rows: list[list[str]] = []
            for cell in self.cells:
                with (root / cell.folder / "scores.csv").open(encoding="utf-8", newline="") as file:
                    header, *body = csv.reader(file)
                rows += [[unescaped(found) for found in row] for row in body]
            write_rows(root / SCORES, [header, *rows])

        return Unit("score", "table", {}, tuple(parts), (SCORES,), work)

    def _annotate(self, needs: list[Unit], tasks: Unit) -> Unit:
        config, annotation = self.config, self.config.annotation
        if annotation.people is not None:
            # Votes of a database that is in use lie beside it.
            beside = annotation.people.with_name(f"{annotation.people.name}-wal")
            sources = {"people": digest_of(annotation.people) or "missing", "wal": digest_of(beside) or "none"}
            work: Callable[[Path], Mapping[str, Any] | None] = partial(copy_of_people, path=annotation.people)
            return Unit("annotate", "people", {}, (*needs, tasks), (ANNOTATIONS,), work, sources)
        settings = {**annotation.model_dump(mode="json", exclude={"people"}), "name": config.name, "seed": config.seed}
        work = partial(annotate_by_machines, dataset=config.name, cells=self.cells, annotation=annotation, seed=config.seed)
        return Unit("annotate", "machines", settings, tuple(needs), (ANNOTATIONS, PICKS), work)

    def _tasks(self, needs: list[Unit]) -> Unit:
        settings = {"name": self.config.name, "seed": self.config.seed}
        work = partial(write_tasks, dataset=self.config.name, cells=self.cells, seed=self.config.seed)
        return Unit("annotate", "tasks", settings, tuple(needs), (TASKS,), work)

    def _report(self, table: Unit, annotations: Unit, tasks: Unit, classifiers: list[Unit], attacks: list[Unit]) -> Unit:
        settings = {**self.config.report.model_dump(mode="json"), "name": self.config.name, "seed": self.config.seed}
        files = (REPORT, SUMMARY, LEAKAGE, CORRELATIONS)
        counts = len(self.training), len(self.validation)
        subject = Subject(self.config, self.cells, tuple(self.betas), *counts, tuple(classifiers), annotations)
        needs = (table, annotations, tasks, *classifiers, *attacks)
        return Unit("report", "all", settings, needs, files, partial(report, study=subject))


def _policy(defence: Defence) -> AugmentationPolicy | None:
    return None if defence.augment is None else AugmentationPolicy(defence.augment)


def _recipe(model: Model, config: Config) -> Training:
    return config.training if model.epochs is None else config.training.model_copy(update={"epochs": model.epochs})


def _check_needs(config: Config, images: TrainingImages) -> None:
    """Fail now, not after hours of attacks, if something that a later step needs is missing."""
    if config.annotation.people is not None:
        for name in images.classes:
            if ";" in name:
                raise ValueError(
                    f"data: the class {name!r} has a semicolon, which separates classes in the tasks for people; rename it."
                )
    for defence in config.defences:
        policy = _policy(defence)
        if policy is not None:
            policy(torch.zeros(1, 3, 16, 16), torch.Generator())
    for model in config.models:
        if model.torchvision is not None:
            check_torchvision(model)
        if config.batch_norm == "train":
            check_batch_statistics(model, len(images.classes), config.data.size)
    if config.scores.lpips:
        LPIPS()
    if config.scores.semsim is not None:
        from attacker_metrics.semsim import load_encoder

        load_encoder(config.scores.semsim)
    if "hog" in config.annotation.machine:
        hog(torch.zeros(1, 3, 32, 32))


def _classifier_file(model: Model, defence: Defence) -> str:
    return f"classifiers/{model.name}/{defence.name}.pt"


def _file_digest(path: Path, key: str) -> str:
    digest = digest_of(path)
    if digest is None:
        raise FileNotFoundError(f"{key}: there is no file {path}.")
    return digest


def _check_views(views: torch.Tensor, digests: list[str], cell: Cell) -> None:
    """The attack's own record of what went into the network must be what its reconstructions are scored against."""
    if [digest(view[None]) for view in views] != digests:
        raise ValueError(f"{cell.folder}: the attacked pictures are not those in views/{cell.defence}; run the attack anew.")


def _json(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None
