"""A study's settings, checked."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from torch import nn

from attacker_metrics.attacks import ATTACKS
from attacker_metrics.attacks.networks import ConvNet, SigmoidLeNet
from attacker_metrics.defenses import DEFENSES, POLICIES
from attacker_metrics.scoring.similarity import MSSSIM
from attacker_metrics.study.machines import DESCRIPTORS

ALL = "all"
"""What the rows of tables over all attacks on a classifier are called."""
NETWORKS: dict[str, type[nn.Module]] = {"lenet": SigmoidLeNet, "convnet": ConvNet}
"""Name -> network; those of torchvision have names of their own."""
SPELLINGS = {"defenses": "defences", "colors": "colours", "optimized": "optimised"}
"""Keys and values that may be spelled in two ways -> how this library spells them."""
_FINITE = ConfigDict(allow_inf_nan=False)
_GIVEN = ("classes", "size", "normalize")
"""Arguments of networks that follow from the data."""


def _beside(path: Path, info: ValidationInfo) -> Path:
    """Paths are relative to the file that names them."""
    return Path(info.context["folder"], path) if info.context else path


def _refuse(message: str, *at: str | int) -> PydanticCustomError:
    """An error, at a key below the place that is being checked."""
    return PydanticCustomError("study", "{message}", {"message": message, "at": list(at)})


def _checked(value: object, annotation: Any, *at: str, strict: bool = False) -> Any:
    try:
        return TypeAdapter(annotation, config=_FINITE).validate_python(value, strict=strict)
    except ValidationError as error:
        raise _refuse(f"{error.errors()[0]['msg']}, got {value!r}.", *at) from error


def _check_network(model: Model, size: int, place: int) -> None:
    """Build the network without weights: what it refuses is told before anything is done."""
    if model.network is None:
        return
    try:
        with torch.device("meta"):
            NETWORKS[model.network](classes=2, size=size, **model.options)
    except (TypeError, ValueError) as error:
        raise _refuse(f"{model.network}: {' '.join(str(error).split())[:300]}", "models", place) from error


def unknown(value: object, names: Iterable[str]) -> str:
    """What is wrong with a name that is not one of these, and which one may be meant."""
    names = list(names)
    close = difflib.get_close_matches(str(value), names, n=1)
    return f"{value!r} is not one of {', '.join(names)}" + (f"; did you mean {close[0]!r}?" if close else ".")


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]
Beside = Annotated[Path, AfterValidator(_beside)]


class Settings(BaseModel):
    """What all parts have in common: unknown keys and endless numbers are errors, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _spelled(cls, content: Any) -> Any:
        """Keys in the spelling of this library."""
        if not isinstance(content, dict):
            return content
        for other, ours in SPELLINGS.items():
            if other in content and ours in content and ours in cls.model_fields:
                raise _refuse(f"{other} and {ours} are two spellings of one key; give one of them.", other)
        ours_of = {other: ours for other, ours in SPELLINGS.items() if ours in cls.model_fields}
        return {ours_of.get(key, key): value for key, value in content.items()}


class Data(Settings):
    """The training images: exactly one of ``builtin``, ``folder`` and ``torchvision``.

    Args:
        builtin: ``"photographs"``: 16 crops (64 pixels and smaller) of each of the four photographs in the package; a
            crop's class is its photograph.
        folder: a folder with a sub-folder of images per class.
        torchvision: name of a data set in ``torchvision.datasets``, with ``root``, the folder that holds it already.
        options: further arguments of that data set; by default its training split.
        size: images are scaled and cropped to so many pixels square.
        limit: use at most so many images, drawn by the seed.
    """

    builtin: Literal["photographs"] | None = None
    folder: Beside | None = None
    torchvision: str | None = None
    root: Beside | None = None
    options: dict[str, Any] = {}
    size: Annotated[int, Field(ge=16)] = 32
    limit: Annotated[int | None, Field(ge=2)] = None

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        given = [name for name in ("builtin", "folder", "torchvision") if getattr(self, name) is not None]
        if len(given) != 1:
            raise _refuse(f"give exactly one of builtin, folder and torchvision, not {' and '.join(given) or 'none'}.")
        if (self.torchvision is None) != (self.root is None):
            raise _refuse("torchvision and root belong together: the data set's name and the folder that holds it.")
        if self.options and self.torchvision is None:
            raise _refuse("options are arguments of a torchvision data set.", "options")
        return self


class Model(Settings):
    """A classifier: one of this library's two small networks or one of torchvision's, trained here or loaded.

    Args:
        name: in tables and file names.
        network: ``"lenet"`` or ``"convnet"``.
        torchvision: name of a model of torchvision, such as ``"resnet18"``.
        weights: a state_dict to load instead of training, or a checkpoint of Lightning; the classifier is then the same
            under every defence. One of torchvision's model alone will do: ImageNet's statistics then normalise images.
        options: further arguments of the network, such as ``width``.
        epochs: train it for so many epochs, by default ``training.epochs``; 0 leaves it untrained.
    """

    name: Name
    network: str | None = None
    torchvision: str | None = None
    weights: Beside | None = None
    options: dict[str, Any] = {}
    epochs: Annotated[int | None, Field(ge=0)] = None

    @field_validator("network")
    @classmethod
    def _known(cls, network: str | None) -> str | None:
        if network is not None and network not in NETWORKS:
            raise _refuse(unknown(network, NETWORKS))
        return network

    @model_validator(mode="after")
    def _one_network(self) -> Model:
        if (self.network is None) == (self.torchvision is None):
            raise _refuse("give network or torchvision, one of them.")
        if self.weights is not None and self.epochs is not None:
            raise _refuse("weights are loaded, not trained: leave epochs out.", "epochs")
        if self.network is not None:
            known = [name for name in inspect.signature(NETWORKS[self.network]).parameters if name not in _GIVEN]
            for name in self.options:
                if name not in known:
                    wrong = (
                        f"{unknown(name, known)} (the options of {self.network})" if known else f"{self.network} has none."
                    )
                    raise _refuse(wrong, "options", name)
                hints = typing.get_type_hints(NETWORKS[self.network].__init__)
                _checked(self.options[name], hints[name], "options", name, strict=True)
        return self


class Training(Settings):
    """How classifiers are trained, by SGD with Nesterov momentum and a learning rate that falls as a cosine.

    Args:
        epochs: 0 leaves them untrained.
        batch_size: images per step.
        learning_rate: at the start.
        momentum: Nesterov's.
        weight_decay: on all parameters.
        validation: share of the images that is kept from training, to state the accuracy; never attacked.
    """

    epochs: Annotated[int, Field(ge=0)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.2


class _Made(Settings):
    """Something that is made by name from a table of classes; further keys are its arguments."""

    model_config = ConfigDict(extra="allow")
    name: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The further keys."""
        return {
            name: SPELLINGS.get(value, value) if isinstance(value, str) else value
            for name, value in (self.model_extra or {}).items()
        }

    def make_from(self, classes: typing.Mapping[str, Any], **more: Any) -> Any:
        """The object; errors are those of the file."""
        if self.name not in classes:
            raise _refuse(unknown(self.name, classes), "name")
        cls = classes[self.name]
        known = {name: one for name, one in inspect.signature(cls).parameters.items() if name not in more}
        missing = [name for name, one in known.items() if one.default is one.empty and name not in self.arguments]
        if missing:
            raise _refuse(f"{self.name} needs {', '.join(missing)}.")
        types = typing.get_type_hints(cls)
        arguments = {}
        for name, value in self.arguments.items():
            if name not in known:
                raise _refuse(f"{unknown(name, known)} (the settings of {self.name})", name)
            arguments[name] = _checked(value, types[name], name)
        try:
            return cls(**arguments, **more)
        except (TypeError, ValueError) as error:
            raise _refuse(f"{self.name}: {error}") from error


class Sharing(_Made):
    """A defence of what is shared, by its name in :data:`attacker_metrics.defenses.DEFENSES`, and its arguments."""

    @model_validator(mode="after")
    def _makes(self) -> Sharing:
        self.make()
        return self

    def make(self) -> Any:
        """The defence."""
        return self.make_from(DEFENSES)


class Defence(Settings):
    """What a client does against reconstruction.

    Args:
        name: in tables and file names.
        augment: a policy of :data:`attacker_metrics.defenses.POLICIES`, such as ``"crop-flip"``: images are augmented in
            training, and so is the image whose gradient is attacked.
        share: applied, one after the other, to the gradients in training and to the attacked ones alike.
    """

    name: Name
    augment: str | None = None
    share: tuple[Sharing, ...] = ()

    @field_validator("augment")
    @classmethod
    def _known(cls, augment: str | None) -> str | None:
        if augment is not None and augment not in POLICIES:
            raise _refuse(unknown(augment, POLICIES))
        return augment


class Attack(_Made):
    """An attack, by its name in :data:`attacker_metrics.attacks.ATTACKS`, and its arguments.

    Args:
        name: which attack.
        label: in tables and file names, where one attack comes twice; by default the name.
    """

    label: Name | None = None

    @field_validator("label")
    @classmethod
    def _free(cls, label: str | None) -> str | None:
        if label == ALL:
            raise _refuse(f"tables call the rows over all attacks {ALL!r}; take another label.")
        return label

    @model_validator(mode="after")
    def _makes(self) -> Attack:
        self.make(0)
        return self

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.label or self.name

    def make(self, seed: int) -> Any:
        """The attack."""
        return self.make_from(ATTACKS, seed=seed)


class Scoring(Settings):
    """Metrics beside MSE, PSNR, SSIM and the seventeen of ``MultiAttackerPrivacy``.

    Args:
        betas: MS-SSIM's exponents; by default as many of the standard five as the images' size allows.
        lpips: add LPIPS; AlexNet's weights must be in torchvision's cache.
        semsim: a checkpoint of ``attacker-metrics semsim train``: add SemSim.
    """

    betas: tuple[float, ...] | None = None
    lpips: bool = False
    semsim: Beside | None = None


class Annotation(Settings):
    """Who says which reconstructions can be recognised: people, or programs that are never called people.

    Args:
        people: an annotation table (CSV or Parquet), or the database of ``attacker-metrics annotate``. It may be missing
            at first: the study then stops once it has written the tasks to ask people.
        machine: descriptors of machine annotators, each of which picks the original among the candidates.
        candidates: how many pictures they pick from, the right one included.
        margin: they say "cannot tell" where the second nearest candidate is less than this share farther than the nearest.
    """

    people: Beside | None = None
    machine: tuple[str, ...] = ()
    candidates: Annotated[int, Field(ge=2)] = 8
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.05

    @field_validator("machine")
    @classmethod
    def _known(cls, machine: tuple[str, ...]) -> tuple[str, ...]:
        machine = tuple(SPELLINGS.get(name, name) for name in machine)
        for place, name in enumerate(machine):
            if name not in DESCRIPTORS:
                raise _refuse(unknown(name, DESCRIPTORS), place)
            if name in machine[:place]:
                raise _refuse(f"{name!r} comes twice.", place)
        return machine

    @model_validator(mode="after")
    def _one_kind(self) -> Annotation:
        if (self.people is None) == (not self.machine):
            raise _refuse("give people (a table of their votes) or machine (names of descriptors), one of them.")
        return self


class Reporting(Settings):
    """The report.

    Args:
        gallery: show so many of the attacked images and what the attacks made of them; the report then holds image data.
        draws: bootstrap draws of the correlations' intervals.
    """

    gallery: Annotated[int, Field(ge=0)] = 0
    draws: Annotated[int, Field(ge=100)] = 1000


class Config(Settings):
    """A study.

    Args:
        name: of the data set, in tables.
        seed: of the choice of images, training, defences, attacks and candidates.
        data: the training images.
        images: how many of them are attacked, each by its own gradient.
        models: the classifiers.
        training: how they are trained.
        defences: what clients do against the attacks.
        attacks: the attacks.
        batch_norm: whether gradients are taken with the running statistics (``"eval"``) or with the batch's (``"train"``).
        together: how many images one attack works on at a time; bounds the memory.
        scores: further metrics.
        annotation: who says what can be recognised.
        report: what the report shows.
    """

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: Data
    images: Annotated[int, Field(ge=1)] = 8
    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    training: Training = Training()
    defences: Annotated[tuple[Defence, ...], Field(min_length=1)]
    attacks: Annotated[tuple[Attack, ...], Field(min_length=1)]
    batch_norm: Literal["eval", "train"] = "eval"
    together: Annotated[int, Field(ge=1)] = 16
    scores: Scoring = Scoring()
    annotation: Annotation
    report: Reporting = Reporting()

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        for part, names in (
            ("models", [model.name for model in self.models]),
            ("defences", [defence.name for defence in self.defences]),
            ("attacks", [attack.title for attack in self.attacks]),
        ):
            for place, name in enumerate(names):
                if name in names[:place]:
                    hint = "; give one of them a label" if part == "attacks" else ""
                    raise _refuse(f"{name!r} comes twice{hint}.", part, place)
        classifiers = [f"{model.name}+{defence.name}" for model in self.models for defence in self.defences]
        for name in classifiers:
            if classifiers.count(name) > 1:
                raise _refuse(f"tables call two classifiers {name!r}; rename a model or a defence.", "models")
        for place, model in enumerate(self.models):
            _check_network(model, self.data.size, place)
        if self.scores.betas is not None:
            try:
                MSSSIM(betas=self.scores.betas).check_size(self.data.size, self.data.size)
            except ValueError as error:
                raise _refuse(str(error), "scores", "betas") from error
        if self.annotation.machine and self.annotation.candidates > self.images:
            raise _refuse(
                f"{self.annotation.candidates} candidates need as many attacked images, there are {self.images}; lower it"
                " or raise images.",
                "annotation",
                "candidates",
            )
        return self
