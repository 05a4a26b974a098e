"""The study: files with mistakes, machine annotators, steps that are done once, real processes, an honest report."""

import csv
import importlib.util
import io
import itertools
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import nn

import attacker_metrics
from attacker_metrics import MultiAttackerPrivacy
from attacker_metrics.attacks import ATTACKS, InvertingGradients, digest, share_gradients
from attacker_metrics.commands.cli import main
from attacker_metrics.defenses import MagnitudePruning
from attacker_metrics.faithfulness import Annotations, Scores, faithfulness, read_annotations, read_scores
from attacker_metrics.files.tensors import save_tensors
from attacker_metrics.quality import quality_scores
from attacker_metrics.scoring.similarity import betas_for
from attacker_metrics.statistics import rate_of_counts
from attacker_metrics.study import ConfigError, builtin_text, parse_config, read_config, units
from attacker_metrics.study.annotating import classes_to_choose_from, copy_of_people
from attacker_metrics.study.classifiers import accuracy, build, load, weights_of
from attacker_metrics.study.config import Data, Model, Training
from attacker_metrics.study.data import DataError, Photographs, open_images
from attacker_metrics.study.files import Cell
from attacker_metrics.study.leakage import LeakageRow, leakage
from attacker_metrics.study.machines import CANNOT_TELL, DESCRIPTORS, draw_candidates, pick
from attacker_metrics.study.reporting import sentences
from attacker_metrics.study.steps import Study
from attacker_metrics.study.training import train
from attacker_metrics.study.units import MANIFESTS, Folder, FolderInUseError, package_digest

needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed"
)

TINY = """
name: tiny
data: {builtin: photographs}
images: 4
models:
  - {name: lenet, network: lenet}
training: {epochs: 1, batch_size: 16, learning_rate: 0.01}
defences:
  - {name: plain}
  - {name: pruning, share: [{name: pruning, share: 0.7}]}
attacks:
  - {name: dlg, iterations: 3}
  - {name: invgrad, iterations: 5, label: short}
annotation: {machine: [hog, low-pass, colours], candidates: 3}
report: {gallery: 2, draws: 100}
"""
STEPS = ("train", "attack", "score", "annotate", "report")


def written(folder, text=TINY):
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def study(step, path, output, capsys=None):
    """Run a step in this process; its lines."""
    assert main(["study", step, str(path), "--output", str(output)]) == 0
    return capsys.readouterr().out.splitlines() if capsys else None


def outputs(folder):
    """Content of every file that does not tell when it was made."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "manifests" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def records(folder):
    """When every unit was done."""
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("manifests/*/**/*.json")}


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A small study, run by one process."""
    folder = tmp_path_factory.mktemp("study")
    study("run", written(folder), folder / "out")
    return folder / "out"


# ------------------------------------------------------------------------------------------------------ the file


MISTAKES = {
    "images: 4": ("images: four", "4: images: Input should be a valid integer"),
    "name: tiny": ("name: ti ny", "2: name: 'ti ny' is no name"),
    "data: {builtin: photographs}": (
        "data: {builtin: photograph}",
        "3: data.builtin: 'photograph' is not one of photographs; did you mean 'photographs'?",
    ),
    "network: lenet}": ("network: lenett}", "6: models[0].network: 'lenett' is not one of lenet, convnet; did you mean"),
    "name: lenet, network": (
        "name: lenet, weights: w.pt, epochs: 1, network",
        "6: models[0].epochs: weights are loaded, not trained: leave epochs out.",
    ),
    "epochs: 1": ("epoch: 1", "7: training.epoch: 'epoch' is not one of epochs, batch_size,"),
    "{name: pruning, share: 0.7}": (
        "{name: prunning, share: 0.7}",
        "10: defences[1].share[0].name: 'prunning' is not one of noise, pruning, sign, low_bit, clipped_noise; did you mean",
    ),
    "share: 0.7": ("share: 7", "10: defences[1].share[0]: pruning: share is 7.0; it is the part that is pruned"),
    "{name: plain}": ("{name: plain, augment: cropflip}", "9: defences[0].augment: 'cropflip' is not one of crop-flip,"),
    "name: invgrad": ("name: invgrd", "13: attacks[1].name: 'invgrd' is not one of dlg, idlg, invgrad, gradinversion; did"),
    "iterations: 5": ("iterations: 5, restart: 2", "13: attacks[1].restart: 'restart' is not one of iterations, restarts,"),
    "iterations: 3": ("iterations: some", "12: attacks[0].iterations: Input should be a valid integer"),
    "label: short": ("label: dlg", "13: attacks[1]: 'dlg' comes twice; give one of them a label."),
    "[hog, low-pass, colours]": ("[hog, hogg]", "14: annotation.machine[1]: 'hogg' is not one of hog, low-pass, colours;"),
    "models:\n  - {name: lenet, network: lenet}": (
        "models:\n  - {name: lenet, network: lenet, options: {width: 8}}",
        "6: models[0].options.width: lenet has none.",
    ),
    "{name: dlg, iterations: 3}": ("dlg", "12: attacks[0]: keys and values belong here, got 'dlg'."),
    "candidates: 3": ("candidates: 5", "14: annotation.candidates: 5 candidates need as many attacked images, there are 4"),
    "machine: [hog, low-pass, colours], ": ("", "14: annotation: give people (a table of their votes) or machine"),
    "draws: 100": ("draws: 100, draws: 200", "15: report.draws: the key comes twice."),
    "report: {gallery: 2": ("report: {gallery: 2]", "15: this is not YAML: "),
}


@pytest.mark.parametrize("right", MISTAKES)
def test_a_mistake_is_told_with_its_line_and_key(right, tmp_path):
    wrong, message = MISTAKES[right]
    assert TINY.count(right) == 1
    with pytest.raises(ConfigError) as caught:
        parse_config(TINY.replace(right, wrong), Path("study.yaml"))
    assert f"study.yaml:{message}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


ODD_MISTAKES = [
    ("report:", "scores: {betas: [-1]}\nreport:", "15: scores.betas: betas must be one or more positive numbers"),
    ("report:", "scores: {betas: []}\nreport:", "15: scores.betas: betas must be one or more positive numbers"),
    ("report:", "scores: {betas: [.3, .3, .4]}\nreport:", "15: scores.betas: images of 32 x 32 pixels are too small"),
    ("photographs}", "photographs, size: 30}", "6: models[0]: lenet: size is 30; this network takes multiples of 4"),
    ("lenet}", "convnet, options: {width: 0}}", "6: models[0]: convnet: width is 0"),
    ("lenet}", "convnet, options: {width: wide}}", "6: models[0].options.width: Input should be a valid integer"),
    ("lenet}", "convnet, options: {pooling: mean}}", "6: models[0].options.pooling: Input should be 'max' or 'average'"),
    ("hog, low-pass", "hog, hog", "14: annotation.machine[1]: 'hog' comes twice."),
    ("images: 4", "images: 4\nseed: 18446744073709551616", "5: seed: Input should be less than"),
    ("learning_rate: 0.01", "learning_rate: .inf", "7: training.learning_rate: Input should be a finite number"),
    ("share: 0.7", "share: .nan", "10: defences[1].share[0].share: Input should be a finite number"),
    ("iterations: 5", "iterations: 5, learning_rate: -1", "13: attacks[1]: invgrad: learning_rate is -1.0"),
    ("label: short", "label: all", "13: attacks[1].label: tables call the rows over all attacks 'all'"),
    (
        "{name: plain}",
        "{name: plain}\n  - {name: plain+plain}",
        "5: models: tables call two classifiers 'lenet+plain+plain'",
    ),
    ("name: tiny", "name: tiny\n1: 2", "3: 1: Keys should be strings"),
    ("photographs}", "photographs, 1: 2}", "3: data.1: Keys should be strings"),
    ("name: tiny", "name: tiny\nseed: &a [*a]", "nested too deeply"),
    ("name: tiny", "name: !!int tiny", "this is not YAML"),
]


@pytest.mark.parametrize(("right", "wrong", "words"), ODD_MISTAKES)
def test_mistakes_in_odd_places_are_told_before_anything_is_done(right, wrong, words):
    text = TINY.replace(right, wrong)
    if "tables call two" in words:
        text = text.replace("lenet}", "lenet}\n  - {name: lenet+plain, network: lenet}")
    with pytest.raises(ConfigError) as caught:
        parse_config(text, Path("study.yaml"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "name: " + "[" * 3000 + "]" * 3000,
        "name: " + "{a: " * 3000 + "}" * 3000,
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)),
        *(
            f"name: !!{tag} abc"
            for tag in ("timestamp", "bool", "int", "float", "binary", "seq", "map", "python/name:os.system")
        ),
        "? [a, b]\n: c",
        "name: \0",
        "name: &a [*a]",
        TINY + "---" + TINY,
        "null",
        '"\\x1b[31m": 3',
        TINY.replace("images: 4", "images: " + "9" * 5000),
        TINY.replace("images: 4", "images: " + "x" * 5000),
    ],
)
def test_a_broken_file_is_told_in_short(text):
    with pytest.raises(ConfigError) as error:
        parse_config(text, Path("study.yaml"))
    assert str(error.value).startswith("study.yaml:")
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_keys_may_be_spelled_in_two_ways_but_not_in_both():
    theirs = TINY.replace("defences", "defenses").replace("colours", "colors").replace("dlg,", "dlg, labels: optimized,")
    ours = TINY.replace("dlg,", "dlg, labels: optimised,")
    one, other = parse_config(theirs, Path("study.yaml")), parse_config(ours, Path("study.yaml"))
    assert one.defences == other.defences
    assert one.annotation == other.annotation
    assert one.attacks[0].make(0).settings == other.attacks[0].make(0).settings
    for wrong, told in (
        (theirs + "defences: []\n", "study.yaml:8: defenses: .* two spellings of one key"),
        (TINY + "defenses: []\n", "study.yaml:16: defenses: defenses and defences are two spellings of one key"),
        (theirs.replace("share: 0.7", "share: 7"), r"study.yaml:10: defenses\[1\].share\[0\]: pruning: share is 7.0"),
        (
            theirs.replace("{name: plain}", "{name: plain, shar: 1}"),
            r"study.yaml:9: defenses\[0\].shar: .* did you mean 'share'",
        ),
        (theirs.replace("colors", "colors, colours"), "'colours' comes twice"),
    ):
        with pytest.raises(ConfigError, match=told):
            parse_config(wrong, Path("study.yaml"))


def test_a_date_is_a_name_like_others():
    assert parse_config(TINY.replace("name: tiny", "name: 2024-13-01"), Path("study.yaml")).name == "2024-13-01"


def test_all_mistakes_are_told_at_once_by_the_command_line(tmp_path, capsys):
    path = written(tmp_path, TINY.replace("images: 4", "image: 4").replace("epochs: 1", "epochs: -1"))
    assert main(["study", "run", str(path), "--output", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert f"{path}:4: image: 'image' is not one of" in told
    assert f"{path}:7: training.epochs: Input should be greater than or equal to 0, got -1." in told
    assert not (tmp_path / "out").exists()


def test_what_is_no_text_is_told_with_its_name(tmp_path):
    (tmp_path / "study.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"study\.yaml: this is not a text file in UTF-8"):
        read_config(tmp_path / "study.yaml")


def test_paths_are_relative_to_the_file(tmp_path):
    text = TINY.replace("data: {builtin: photographs}", "data: {folder: pictures}")
    assert parse_config(text, tmp_path / "study.yaml").data.folder == tmp_path / "pictures"


def test_the_builtin_file_is_valid_and_printed(capsys):
    assert main(["study", "config"]) == 0
    assert capsys.readouterr().out == builtin_text()
    config = parse_config(builtin_text(), Path("builtin.yaml"))
    assert config.images >= 8
    assert len(config.models) * len(config.defences) * len(config.attacks) >= 12


# ------------------------------------------------------------------------------------------------------ the images


def test_the_builtin_images_are_the_photographs_cut_up():
    images = Photographs(64)
    assert (len(images), len(images.classes)) == (64, 4)
    assert images.classes == sorted(images.classes)
    folder = Path(attacker_metrics.__file__).parent / "files" / "photographs"
    for index in (0, 21, 63):
        name, place = images.names[index].split("/")
        top, left = map(int, place.split("-"))
        photograph = np.asarray(Image.open(folder / f"{name}.jpg")).transpose(2, 0, 1) / 255
        image, label = images[index]
        np.testing.assert_allclose(image, photograph[:, top : top + 64, left : left + 64], atol=1e-6)
        assert images.labels[index] == label == images.classes.index(name)


def test_a_folder_of_images_has_a_class_per_sub_folder(tmp_path):
    for name, shade in (("dark", 20), ("bright", 220), ("dark", 40)):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (shade, 0, 0)).save(tmp_path / name / f"{shade}.png")
    images = open_images(Data(folder=tmp_path, size=16), seed=0)
    assert (images.names, images.labels) == (["bright/220.png", "dark/20.png", "dark/40.png"], [0, 1, 1])
    assert torch.allclose(images[0][0], torch.tensor([220 / 255, 0, 0]).view(3, 1, 1).expand(3, 16, 16))
    before = images.digest()
    Image.new("RGB", (40, 30), (21, 0, 0)).save(tmp_path / "dark" / "20.png")
    assert open_images(Data(folder=tmp_path, size=16), seed=0).digest() != before
    (tmp_path / "dark" / "album.png").mkdir()
    assert open_images(Data(folder=tmp_path, size=16), seed=0).names == images.names
    (tmp_path / ".cache" / "config").mkdir(parents=True)
    (tmp_path / ".cache" / "config" / "cut.png").write_bytes((tmp_path / "dark" / "20.png").read_bytes())
    from_elsewhere = open_images(Data(folder=tmp_path / ".cache" / "..", size=16), seed=0)  # as ../pictures in the file
    assert from_elsewhere.names == images.names
    with pytest.raises(DataError, match=r"has 0 sub-folders with images; there must be one per class"):
        open_images(Data(folder=tmp_path / "dark", size=16), seed=0)
    (tmp_path / "dark" / "20.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"20\.png cannot be read as an image"):
        open_images(Data(folder=tmp_path, size=16), seed=0)[1]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_file_name_that_is_no_text_is_told(tmp_path):
    for name in ("dark", "bright"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (30, 30)).save(tmp_path / name / "1.png")
    (tmp_path / "dark" / "1.png").rename(tmp_path / "dark" / os.fsdecode(b"\xff.png"))
    with pytest.raises(DataError, match="is no text in UTF-8; rename"):
        open_images(Data(folder=tmp_path, size=16), seed=0)


@needs_torchvision
def test_a_torchvision_data_set_on_the_disk_is_read_and_never_downloaded(tmp_path):
    data = Data(torchvision="MNIST", root=tmp_path, size=28)
    with pytest.raises(DataError, match=r"MNIST cannot be read from .* Nothing is downloaded"):
        open_images(data, seed=0)
    with pytest.raises(DataError, match=r"there is no 'MNISTT'; did you mean 'E?MNIST'"):
        open_images(Data(torchvision="MNISTT", root=tmp_path), seed=0)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in pixels.shape)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + (6).to_bytes(4, "big") + bytes([3, 1, 4, 1, 5, 9]))
    images = open_images(data, seed=0)
    assert (images.labels, len(images.classes)) == ([3, 1, 4, 1, 5, 9], 10)
    assert torch.equal(images[2][0], torch.from_numpy(pixels[2]).float().expand(3, 28, 28) / 255)


# ------------------------------------------------------------------------------------------------------ classifiers


@needs_torchvision
@pytest.mark.parametrize(("name", "split"), [("EMNIST", "byclass"), ("Places365", "train-standard")])
def test_a_data_set_that_needs_a_split_says_so(name, split, tmp_path):
    with pytest.raises(DataError, match=rf"data\.options\.split: {name} has no split 'train'.*{split}"):
        open_images(Data(torchvision=name, root=tmp_path), 0)
    with pytest.raises(DataError, match="Nothing is downloaded"):
        open_images(Data(torchvision=name, root=tmp_path, options={"split": split}), 0)


@needs_torchvision
def test_batch_statistics_of_one_value_are_told_before_anything_is_done(tmp_path, capsys):
    text = TINY.replace("{name: lenet, network: lenet}", "{name: resnet, torchvision: resnet18}") + "batch_norm: train\n"
    assert main(["study", "run", str(written(tmp_path, text)), "--output", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "batch_norm: train does not suit model resnet at 32 pixels" in told
    assert "batch_norm: eval" in told
    assert not (tmp_path / "out").exists()


@needs_torchvision
def test_a_network_that_returns_more_than_logits_in_training_is_trained():
    network = build(Model(name="a", torchvision="googlenet", options={"aux_logits": True, "init_weights": False}), 4, 32)
    images = Photographs(64)
    assert isinstance(train(network, images, Training(epochs=1, batch_size=64), seed=0), float)
    assert accuracy(network, images) is not None


def test_training_learns_and_a_seed_gives_the_same_weights():
    images, recipe = Photographs(32), Training(epochs=6, batch_size=16, learning_rate=0.01)
    model = Model(name="convnet", network="convnet", options={"width": 4})
    runs = []
    for _ in range(2):
        network = build(model, 4, 32, seed=1)
        before = accuracy(network, images)
        loss = train(network, images, recipe, seed=3)
        runs.append((weights_of(network), loss))
    assert loss < 0.8  # of four classes: log 4 = 1.39 is chance
    assert accuracy(network, images) > before
    assert runs[0] == runs[1]


def test_a_defence_is_applied_to_the_gradient_of_every_training_step():
    images, recipe = Photographs(32), Training(epochs=1, batch_size=32, learning_rate=0.1, momentum=0, weight_decay=0)
    network = build(Model(name="lenet", network="lenet"), 4, 32)
    before = {name: value.clone() for name, value in network.named_parameters()}
    seen = []

    def keep_largest(gradients, generator=None):
        seen.append(generator)
        return MagnitudePruning(0.999)(gradients)

    train(network, images, recipe, seed=0, share=[keep_largest])
    assert len(seen) == 2  # steps of 64 images
    for name, value in network.named_parameters():
        changed = int((value != before[name]).sum())
        kept = max(1, value.numel() - round(0.999 * value.numel()))
        assert 1 <= changed <= 2 * kept, name


def test_a_last_batch_of_one_image_is_no_error_of_batch_norm():
    network = nn.Sequential(nn.Conv2d(3, 4, 32), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 4))
    recipe = Training(epochs=1, batch_size=63, learning_rate=0.1)
    assert train(network, Photographs(32), recipe, seed=0) > 0
    assert int(network[1].num_batches_tracked) == 1  # of 64 images


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_weights_of_a_file_are_loaded_and_others_refused(tmp_path):
    model = Model(name="lenet", network="lenet")
    network = build(model, 4, 32, seed=5)
    again = load(model, weights_of(network), 4, 32)
    pixels = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(pixels), network(pixels))
    module = LightningModule()
    module.metric, module.network = nn.Linear(2, 2), network
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "classifier.ckpt")
    again = load(model, (tmp_path / "classifier.ckpt").read_bytes(), 4, 32)
    assert weights_of(again) == weights_of(network)
    state = network.state_dict()
    for prefix in ("module.", "_orig_mod.network."):
        assert weights_of(load(model, saved({prefix + name: value for name, value in state.items()}), 4, 32)) == weights_of(
            network
        )
    two = {f"{prefix}.{name}": value for name, value in state.items() for prefix in ("student", "teacher")}
    with pytest.raises(ValueError, match=r"several networks, whose names begin with 'student\.' and 'teacher\.'"):
        load(model, saved({"state_dict": two}), 4, 32)
    more = saved({**state, "more": torch.ones(1)})
    for content in (b"nothing", more, weights_of(nn.Linear(2, 2)), weights_of(build(model, 5, 32))):
        with pytest.raises(ValueError, match="the weights of model lenet are no state_dict of it for 4 classes"):
            load(model, content, 4, 32)


def test_weights_are_read_from_safetensors_and_by_older_torch_from_nothing_else(monkeypatch):
    model = Model(name="lenet", network="lenet")
    network = build(model, 4, 32, seed=5)
    assert weights_of(load(model, save_tensors(network.state_dict()), 4, 32)) == weights_of(network)
    with pytest.raises(ValueError, match="are no state_dict of it for 4 classes") as error:
        load(model, save_tensors({"weight": torch.ones(1)}), 4, 32)
    assert "weights_only" not in str(error.value)
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    with pytest.raises(ValueError, match=r"CVE-2025-32434.*safetensors"):
        load(model, weights_of(network), 4, 32)
    assert weights_of(load(model, save_tensors(network.state_dict()), 4, 32)) == weights_of(network)
    assert weights_of(load(model, weights_of(network), 4, 32, own=True)) == weights_of(network)


@needs_torchvision
def test_the_weights_of_a_torchvision_model_alone_are_loaded():
    model = Model(name="resnet", torchvision="resnet18")
    network = build(model, 4, 32, seed=5)
    alone = {f"net.{name}": value for name, value in network[1].state_dict().items()}
    for content in (saved(network[1].state_dict()), saved({"state_dict": alone})):
        assert weights_of(load(model, content, 4, 32)) == weights_of(network)


# ------------------------------------------------------------------------------------------------------ machines


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_machine_annotators_find_what_is_there_and_nothing_else(name):
    originals = torch.stack([Photographs(32)[i][0] for i in range(0, 64, 2)])
    candidates = draw_candidates(len(originals), 8, seed=0)
    sure = pick(originals, originals, candidates, name, margin=0.05)
    right = np.mean([choice == image for image, choice in enumerate(sure)])
    assert right == 1
    light = pick(originals + 0.02 * torch.randn_like(originals), originals, candidates, name, margin=0.0)
    assert np.mean([choice == image for image, choice in enumerate(light)]) > 0.6
    # Noise tells nothing: whoever always has to pick is right once in eight, by Hoeffding within .14 for 400 of them.
    noise, where = torch.rand(400, 3, 32, 32), np.arange(400) % len(originals)
    guessed = pick(noise, originals, draw_candidates(len(originals), 8, seed=1)[where], name, margin=0.0)
    assert abs(np.mean(np.asarray(guessed) == where) - 1 / 8) < 0.14
    assert set(
        pick(torch.full((2, 3, 32, 32), 0.5), originals[:1].expand(2, -1, -1, -1), np.array([[0, 1]] * 2), name, 0.05)
    ) == {CANNOT_TELL}


def test_candidates_hold_the_right_one_at_random_places():
    drawn = draw_candidates(60, 6, seed=0)
    assert all(len(set(row)) == 6 for row in drawn.tolist())
    places = [row.index(image) for image, row in enumerate(drawn.tolist())]
    assert np.bincount(places, minlength=6).min() >= 3
    assert np.array_equal(drawn, draw_candidates(60, 6, seed=0))


def test_a_class_that_tasks_for_people_cannot_hold_is_told_before_anything_is_done(tmp_path, capsys):
    for name in ("a;b", "c"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32)).save(tmp_path / "pictures" / name / f"{number}.png")
    text = TINY.replace("builtin: photographs", "folder: pictures").replace(
        "machine: [hog, low-pass, colours]", "people: v.csv"
    )
    assert main(["study", "run", str(written(tmp_path, text)), "--output", str(tmp_path / "out")]) == 2
    assert "the class 'a;b' has a semicolon" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_people_choose_among_twenty_classes_at_most():
    classes = [f"c{k:02}" for k in range(50)]
    shown = classes_to_choose_from(classes, "c33", (0, 5))
    assert len(shown) == 20
    assert "c33" in shown
    assert shown == sorted(shown)
    assert shown == classes_to_choose_from(classes, "c33", (0, 5))
    others = [set(classes_to_choose_from(classes, "c33", (0, image))) - {"c33"} for image in range(30)]
    assert set.union(*others) == set(classes) - {"c33"}  # no class is the odd one out
    assert classes_to_choose_from(classes[:4], "c01", (0, 0)) == classes[:4]


# ------------------------------------------------------------------------------------------------------ the outcome


def test_every_reconstruction_is_scored_against_the_very_view_that_was_attacked(done):
    rows = {row["reconstruction"]: row for row in table(done / "scores.csv")}
    assert len(rows) == 1 * 2 * 2 * 4
    for folder in sorted(done.glob("reconstructions/*/*/*")):
        found, views = (
            torch.from_numpy(np.load(place / "images.npy")) for place in (folder, done / "views" / folder.parent.name)
        )
        threat_model = json.loads((folder / "threat_model.json").read_text())
        assert threat_model["views"] == [digest(view[None]) for view in views]
        assert threat_model["epoch"] == 1
        privacy = MultiAttackerPrivacy(betas=betas_for(32))
        for image in range(4):
            row = rows[f"{folder.relative_to(done).as_posix()}/{image:04}.png"]
            expected = privacy(found[image : image + 1], views[image : image + 1])
            expected |= quality_scores(found[image : image + 1], views[image : image + 1])
            assert list(row)[1:] == [*privacy, "mse", "psnr", "ssim"]
            for name, value in expected.items():
                assert float(row[name]) == pytest.approx(float(value), abs=2e-5), name


def test_the_attacked_gradient_is_the_defended_one(done):
    threat_models = {
        path.parts[-3]: json.loads(path.read_text()) for path in done.glob("reconstructions/lenet/*/dlg/threat_model.json")
    }
    assert threat_models["plain"]["defenses"] == []
    assert threat_models["pruning"]["defenses"] == ["MagnitudePruning(share=0.7)"]
    # Two trainings, two classifiers: the defence acts in training too.
    assert threat_models["plain"]["checkpoint"] != threat_models["pruning"]["checkpoint"]
    attacked = json.loads((done / "originals" / "attacked.json").read_text())
    labels = torch.tensor([image["label"] for image in attacked["images"]])
    content = (done / "classifiers" / "lenet" / "pruning.pt").read_bytes()
    network = load(Model(name="lenet", network="lenet"), content, 4, 32)
    views = torch.from_numpy(np.load(done / "views" / "pruning" / "images.npy"))
    shared = share_gradients(network, views, labels, defenses=[MagnitudePruning(0.7)])
    assert shared.threat_model.checkpoint == threat_models["pruning"]["checkpoint"]
    found = torch.from_numpy(np.load(done / "reconstructions" / "lenet" / "pruning" / "dlg" / "images.npy"))
    record = json.loads((done / "manifests" / "attack" / "lenet" / "pruning" / "dlg.json").read_text())
    from attacker_metrics.attacks import DLG

    again = DLG(iterations=3)(network, shared)
    assert torch.allclose(again.images, found, atol=1e-4)
    assert record["facts"]["loss"] == pytest.approx(again.loss.tolist(), rel=1e-3)


def test_pictures_are_the_reconstructions_rounded(done):
    folder = done / "reconstructions" / "lenet" / "plain" / "short"
    found = np.load(folder / "images.npy")
    for image in range(4):
        shown = np.asarray(Image.open(folder / f"{image:04}.png")).transpose(2, 0, 1) / 255
        assert np.abs(shown - found[image]).max() <= 0.5 / 255 + 1e-6


def test_the_correlations_are_those_of_the_faithfulness_command(done, tmp_path):
    outcome = faithfulness(read_scores(done / "scores.csv"), read_annotations(done / "annotations.csv"), draws=100)
    rows = {(row["level"], row["metric"], row["statistic"]): row for row in table(done / "correlations.csv")}
    for level in (outcome.image, outcome.model):
        for name, statistics in level.statistics.items():
            for statistic, estimate in statistics.items():
                row = rows[level.level, name, statistic]
                assert [float(row[key] or "nan") for key in ("value", "low", "high")] == pytest.approx(estimate, nan_ok=True)


def test_leakage_is_means_and_majorities():
    cells = [Cell("m", "plain", "a"), Cell("m", "plain", "b")]
    ids = [f"{cell.folder}/{k:04}.png" for cell in cells for k in range(3)]
    columns = [["set"] * 6, ["m+plain"] * 6, ["a"] * 3 + ["b"] * 3, [str(k % 3) for k in range(6)], ids]
    votes = {"x": [1, 1, 0, 0, 0, np.nan], "y": [1, 0, 0, 1, 0, np.nan], "z": [1, 1, 0, 0, 0, np.nan]}
    scores = Scores(ids, {"psnr": [10, 20, np.inf, 5, 7, 9], "mse": [0.1, 0.2, 0.3, 0.5, 0.5, 0.5]})
    first, second, both = leakage(cells, scores, Annotations(*columns, votes))
    assert (first.attack, second.attack, both.attack, both.images) == ("a", "b", "all", 6)
    assert [row.metrics["psnr"].value for row in (first, second, both)] == [np.inf, 7, np.inf]  # one leaked whole
    assert first.metrics["mse"].value == pytest.approx(0.2)
    assert [(row.recognized.successes, row.recognized.n) for row in (first, second, both)] == [(2, 3), (0, 2), (2, 5)]


def test_the_report_says_what_it_rests_on_and_never_calls_machines_people(done):
    page, summary = (done / "report.html").read_text(), json.loads((done / "report.json").read_text())
    assert summary["annotators"]["kind"] == "machine"
    assert summary["annotators"]["names"] == ["machine-hog", "machine-low-pass", "machine-colours"]
    assert summary["annotators"]["chance"] == pytest.approx(1 / 3)
    assert "Annotated by machines, not by people: machine-hog, machine-low-pass, machine-colours." in page
    assert "Chance level of one annotator who guesses: 0.333" in " ".join(page.split())
    assert "of more than half of 3 who guess independently: 0.26" in " ".join(page.split())
    assert "4 attacked images of 32 x 32 pixels" in page
    assert "DEFAULT" not in page
    for text in (page, json.dumps(summary), (done / "annotations.csv").read_text()):
        assert "human" not in text.lower()
        phrases = ("not by people", "programs and not people", "nothing about what people would")
        assert text.count("people") == sum(text.count(phrase) for phrase in phrases)
    assert "This section holds image data." in page
    assert {row["model"] for row in table(done / "annotations.csv")} == {"lenet+plain", "lenet+pruning"}
    picks = {row["reconstruction"]: row for row in table(done / "machine_picks.csv")}
    for row in table(done / "annotations.csv"):
        picked = picks[row["reconstruction"]]
        for name in ("hog", "low-pass", "colours"):
            assert int(row[f"annotator_machine-{name}"]) == (picked[f"machine-{name}"] == picked["right"])
        assert picked["right"] in picked["candidates"].split(";")


def test_tasks_for_people_name_files_that_are_there(done):
    attacked = json.loads((done / "originals" / "attacked.json").read_text())
    for row in table(done / "annotation_tasks.csv"):
        assert (done / row["original"]).is_file()
        assert (done / row["reconstruction"]).is_file()
        assert row["candidates"].split(";") == attacked["classes"]
        assert row["class"] == attacked["images"][int(Path(row["reconstruction"]).stem)]["class"]


def test_every_step_leaves_a_manifest_whose_digests_hold(done):
    from hashlib import sha256

    for step in STEPS:
        manifest = json.loads((done / "manifests" / f"{step}.json").read_text())
        assert set(manifest) == {"step", "settings_digest", "inputs", "outputs", "units", "versions", "seconds"}
        for name, value in manifest["outputs"].items():
            assert sha256((done / name).read_bytes()).hexdigest() == value
    told = [json.loads((done / "manifests" / f"{step}.json").read_text()) for step in STEPS]
    made = set().union(*(manifest["outputs"] for manifest in told))
    assert made == set(outputs(done))
    assert told[0]["inputs"].keys() == {"data"}


# ------------------------------------------------------------------------------------------------------ doing it again


def test_what_is_done_is_skipped_and_changed_settings_redo_a_step_and_those_after_it(done, tmp_path, capsys):
    folder = tmp_path / "out"
    subprocess.run(["cp", "-r", done, folder], check=True)
    before = records(folder)
    lines = study("run", written(tmp_path), folder, capsys)
    assert records(folder) == before
    assert lines[:-1] == [
        f"{step}: {count} done before, skipped" for step, count in zip(STEPS, (3, 6, 5, 2, 1), strict=True)
    ]

    changed = written(tmp_path, TINY.replace("iterations: 3", "iterations: 2"))
    assert main(["study", "score", str(changed), "--output", str(folder)]) == 2
    assert "attack lenet/plain/dlg has to be done first (changed: attack.iterations 3 -> 2)" in capsys.readouterr().err
    lines = study("run", changed, folder, capsys)
    redone = {name for name, when in records(folder).items() if before[name] != when}
    assert "manifests/attack/lenet/plain/short.json" not in redone
    assert not any(name.startswith("manifests/train") for name in redone)
    assert redone == {
        *(f"manifests/{step}/lenet/{defence}/dlg.json" for step in ("attack", "score") for defence in ("plain", "pruning")),
        "manifests/score/table.json",
        "manifests/annotate/machines.json",
        "manifests/annotate/tasks.json",
        "manifests/report/all.json",
    }
    assert any(line.endswith("done again: changed: attack.iterations 3 -> 2") for line in lines)

    (folder / "views" / "plain" / "0001.png").write_bytes(b"")
    lines = study("run", changed, folder, capsys)
    (line,) = (line for line in lines if "done again" in line)
    assert line.startswith("attack views/plain:")
    assert line.endswith("views/plain/0001.png is missing or not what was written")


def test_another_default_or_other_code_makes_results_old(done, monkeypatch):
    config = parse_config(TINY, Path("study.yaml"))

    def reasons():
        planned = Study(config, open_images(config.data, config.seed), torch.device("cpu"))
        units_ = {unit.title: unit for step in STEPS for wave in planned.waves[step] for unit in wave}
        return {title: reason for title, unit in units_.items() if (reason := Folder(done).reason_to_do(unit)) is not None}

    assert reasons() == {}
    monkeypatch.setattr(units, "package_digest", lambda: "new")
    assert set(reasons().values()) == {"changed: this library's code"}
    assert len(reasons()) == len([*(done / MANIFESTS).glob("*/**/*.json")])
    monkeypatch.undo()

    @dataclass(frozen=True, kw_only=True)
    class OfNextRelease(InvertingGradients):
        learning_rate: float = 0.3

    monkeypatch.setitem(ATTACKS, "invgrad", OfNextRelease)
    found = reasons()
    assert "attack.learning_rate 0.025 -> 0.3" in found["attack lenet/plain/short"]
    assert "attack lenet/plain/dlg" not in found
    config = parse_config(TINY.replace("network: lenet}", "network: lenet, epochs: 0}"), Path("study.yaml"))
    assert reasons()["train lenet/plain"] == "changed: training.epochs 1 -> 0"


def test_the_digest_that_tells_other_code_is_that_of_the_whole_package(done):
    record = json.loads((done / MANIFESTS / "train" / "data.json").read_text())
    assert record["code"] == package_digest()


def nested(depth):
    return "[" * depth + "]" * depth


DAMAGED = {
    "empty": lambda text: "",
    "list": lambda text: "[]",
    "null": lambda text: "null",
    "number": lambda text: "7",
    "text": lambda text: '"done"',
    "no keys": lambda text: "{}",
    "cut": lambda text: text[: len(text) // 2],
    "not UTF-8": lambda text: b"\xff\xfe{}",
    "huge number": lambda text: "9" * 10_000,
    "nested": lambda text: nested(100_000),
    "nested inside": lambda text: text.replace('"facts": ', f'"facts": {{}}, "more": {nested(900)}, "old": '),
    "facts of another type": lambda text: json.dumps({**json.loads(text), "facts": []}),
    "other facts": lambda text: json.dumps({**json.loads(text), "facts": {"validation_accuracy": "high"}}),
    "inputs of another type": lambda text: json.dumps({**json.loads(text), "inputs": 1}),
    "no outputs": lambda text: json.dumps({**json.loads(text), "outputs": {}}),
    "outputs of another type": lambda text: json.dumps({**json.loads(text), "outputs": {"scores.csv": [1]}}),
    "endless seconds": lambda text: json.dumps({**json.loads(text), "seconds": float("nan")}),
    "no settings": lambda text: json.dumps({**json.loads(text), "settings": None, "settings_digest": 3}),
}


@pytest.mark.parametrize("name", list(DAMAGED))
def test_a_damaged_record_is_told_and_its_unit_done_again(name, done, tmp_path, capsys):
    folder = tmp_path / "out"
    subprocess.run(["cp", "-r", done, folder], check=True)
    before = outputs(folder)
    for path in (folder / MANIFESTS / "train" / "lenet" / "plain.json", folder / MANIFESTS / "score" / "table.json"):
        content = DAMAGED[name](path.read_text())
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for step in ("train", "score"):
        (folder / MANIFESTS / f"{step}.json").write_text("[]")
    lines = study("run", written(tmp_path), folder, capsys)
    again = [line for line in lines if "done again" in line]
    assert len(again) == 2
    assert all(line.endswith("done again: its record is damaged, or of another release") for line in again)
    assert outputs(folder) == before
    assert json.loads((folder / MANIFESTS / "score.json").read_text())["step"] == "score"


def test_a_study_of_the_release_before_is_done_again_and_says_so(done, tmp_path, capsys):
    folder = tmp_path / "out"
    subprocess.run(["cp", "-r", done, folder], check=True)
    before = outputs(folder)
    for path in (folder / MANIFESTS).glob("*/**/*.json"):  # its records had no digest of their own, and one of code per step
        record = json.loads(path.read_text())
        del record["digest"]
        path.write_text(json.dumps({**record, "code": "0" * 64, "settings_digest": "0" * 64}))
    assert main(["study", "score", str(written(tmp_path)), "--output", str(folder)]) == 2
    assert "has to be done first (changed: this library's code)" in capsys.readouterr().err
    lines = study("run", written(tmp_path), folder, capsys)
    assert len([line for line in lines if line.endswith("done again: changed: this library's code")]) == len(records(folder))
    assert outputs(folder) == before


def test_who_holds_a_study_is_told_and_a_killed_holder_blocks_nobody(tmp_path):
    path = tmp_path / "a study"
    code = (
        "import os, signal, sys; from pathlib import Path; from attacker_metrics.study.units import Folder\n"
        "with Folder(Path(sys.argv[1])).held():\n    print('held', flush=True); signal.pause()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        since = json.loads((path / MANIFESTS / ".lock.json").read_text())["since"]
        told = rf"at work in .*a study \(process {holder.pid} on {re.escape(platform.node())}, since {since}\)"
        with pytest.raises(FolderInUseError, match=told), Folder(path).held():
            pass
        for content in ("", "[]", "{}", '{"process": "\x1b[31m"}', nested(100_000)):
            (path / MANIFESTS / ".lock.json").write_text(content)
            with pytest.raises(FolderInUseError) as error, Folder(path).held():
                pass
            assert "\x1b" not in str(error.value)
    finally:
        holder.kill()
        holder.communicate()
    with Folder(path).held():
        assert json.loads((path / MANIFESTS / ".lock.json").read_text())["process"] == os.getpid()
    assert not (path / MANIFESTS / ".lock.json").exists()


def test_steps_run_alone_in_their_order(tmp_path, capsys):
    path = written(tmp_path)
    for earlier, step in itertools.pairwise(STEPS):
        assert main(["study", step, str(path), "--output", str(tmp_path / "out")]) == 2
        assert f"run 'attacker-metrics study {earlier}', or 'study run'" in capsys.readouterr().err
        study(earlier, path, tmp_path / "out")
        capsys.readouterr()
    study("report", path, tmp_path / "out")


def test_people_are_asked_first_and_then_counted(done, tmp_path, capsys):
    folder = tmp_path / "out"
    subprocess.run(["cp", "-r", done, folder], check=True)
    text = TINY.replace("machine: [hog, low-pass, colours], candidates: 3", "people: votes.csv")
    path = written(tmp_path, text)
    (folder / "annotation_tasks.csv").unlink()
    assert main(["study", "run", str(path), "--output", str(folder)]) == 2
    assert "votes.csv is not there yet. Ask people, e.g. by 'attacker-metrics annotate" in capsys.readouterr().err
    tasks = table(folder / "annotation_tasks.csv")
    keys = ["dataset", "model", "attack", "original", "reconstruction", "class"]

    def collected(votes):
        with (tmp_path / "votes.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*keys, "annotator_ann", "annotator_bo", "annotator_cy"])
            for number, row in enumerate(tasks[1:]):  # one was never asked about
                writer.writerow([*(row[key] for key in keys), *votes(number, row["class"])])

    collected(lambda _number, _right: ["", "", ""])
    assert main(["study", "run", str(path), "--output", str(folder)]) == 2
    assert "has votes on none of this study's reconstructions" in capsys.readouterr().err
    collected(lambda number, right: [right if number % 2 else "-1", right, ""])  # cy has not begun
    study("run", path, folder)
    summary, page = json.loads((folder / "report.json").read_text()), (folder / "report.html").read_text()
    assert summary["annotators"] == {
        "names": ["ann", "bo"],
        "annotators": 2,
        "reconstructions": 15,
        "kind": "people",
        "candidates": 4,
        "task": "choose among 4 classes, or say 'cannot tell'",
        "chance": 0.25,
        "chance_of_majority": 0.0625,
    }
    assert "Annotated by 2 people." in page
    assert "<td>cy</td><td>-</td>" in page
    assert any(sentence.startswith("Over 4 classifiers under an attack") for sentence in summary["readings"])
    assert "machine" not in page
    subprocess.run(["cp", done / "annotations.csv", tmp_path / "votes.csv"], check=True)
    capsys.readouterr()
    assert main(["study", "run", str(path), "--output", str(folder)]) == 2
    assert "holds machine annotators" in capsys.readouterr().err


def voted(folder, path, task):
    """Votes of two people by the annotation app, one of whom recognises everything."""
    from attacker_metrics.annotation import Database, open_study

    opened = Database(path)
    try:
        store = open_study(folder / "annotation_tasks.csv", opened, task=task)
        for name, knows in (("Ann", True), ("Bo", False)):
            person = store.register(name)
            while (trial := store.show(person).trial) is not None:
                right = store.items[trial.item].category if task == "category" else "same"
                store.vote(person, trial.token, right if knows else None)
    finally:
        opened.close()


def test_the_tasks_go_to_the_annotation_app_and_its_database_comes_back(done, tmp_path):
    folder = tmp_path / "out"
    subprocess.run(["cp", "-r", done, folder], check=True)
    voted(folder, tmp_path / "votes.sqlite", "category")
    text = TINY.replace("machine: [hog, low-pass, colours], candidates: 3", "people: votes.sqlite")
    study("run", written(tmp_path, text), folder)
    votes = read_annotations(folder / "annotations.csv").votes
    assert {name: column.tolist() for name, column in votes.items()} == {"Ann": [1] * 16, "Bo": [0] * 16}
    annotators = json.loads((folder / "report.json").read_text())["annotators"]
    assert (annotators["kind"], annotators["chance"]) == ("people", 0.25)


def test_what_people_were_asked_is_read_from_their_votes(done, tmp_path):
    folder = tmp_path / "out"
    subprocess.run(["cp", "-r", done, folder], check=True)
    voted(folder, tmp_path / "pairs.sqlite", "pair")
    assert copy_of_people(folder, tmp_path / "pairs.sqlite") == {"task": "pair"}
    rows = table(done / "annotations.csv")
    for votes, told in (
        ({"annotator_ann": 1}, {"task": "unknown"}),
        ({"class": "cat", "annotator_ann": "cat"}, {"task": "category"}),
    ):
        keys = ("dataset", "model", "attack", "original", "reconstruction")
        with (tmp_path / "votes.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*keys, *votes])
            writer.writeheader()
            writer.writerows({**{key: row[key] for key in keys}, **votes} for row in rows)
        assert copy_of_people(folder, tmp_path / "votes.csv") == told
    (tmp_path / "votes.csv").write_text((tmp_path / "votes.csv").read_text().replace("reconstructions/", "elsewhere/"))
    with pytest.raises(ValueError, match=r"votes on none of this study's reconstructions"):
        copy_of_people(folder, tmp_path / "votes.csv")
    picture = folder / rows[0]["reconstruction"]
    picture.write_bytes((folder / rows[1]["reconstruction"]).read_bytes())
    with pytest.raises(
        ValueError, match=r"on other pictures than those that now have their names \(1, e.g. reconstructions"
    ):
        copy_of_people(folder, tmp_path / "pairs.sqlite")


def test_a_tie_is_no_ranking():
    basis = {"kind": "people", "annotators": 1, "reconstructions": 8}
    rows = [LeakageRow("m", name, "a", 4, {}, rate_of_counts(hits, 4)) for name, hits in (("x", 1), ("y", 1))]
    assert sentences(rows, basis) == [
        "Recognised means: by more than half of 1 person, on 8 reconstructions.",
        "As many were recognised of each classifier under each attack: these data show no difference.",
    ]
    rows.append(LeakageRow("m", "z", "a", 4, {}, rate_of_counts(3, 4)))
    (said,) = sentences(rows, basis)[1:]
    assert said.startswith("Most is recognised of m+z under a, 3 of 4")
    assert "least of m+x under a, 1 of 4" in said
    assert said.endswith("(and of 1 other alike).")


# ------------------------------------------------------------------------------------------------------ real processes


def command(path, output, processes=None):
    python = [sys.executable, "-m"]
    torchrun = [*python, "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    start = python if processes is None else torchrun
    return [*start, "attacker_metrics", "study", "run", str(path), "--output", str(output)]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_a_killed_study_is_finished_by_two_processes_and_gives_what_one_gives(done, tmp_path, capsys):
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this build of torch has no gloo")
    path, folder = written(tmp_path), tmp_path / "out"
    running = subprocess.Popen(command(path, folder), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not (folder / "manifests" / "train" / "data.json").is_file():
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # Lightning, which is imported now, takes seconds: the first run is still at work.
        assert main(["study", "run", str(path), "--output", str(folder)]) == 2
        assert f"another run is at work in {folder}" in capsys.readouterr().err
        while not (folder / "manifests" / "train" / "lenet" / "plain.json").is_file():
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    finally:
        running.kill()
        running.wait()
    kept = records(folder)
    assert "manifests/report/all.json" not in kept
    ran = subprocess.run(command(path, folder, 2), env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert "done again" not in ran.stdout
    assert " done before, skipped" in ran.stdout
    assert sum("lenet/pruning/dlg" in line for line in ran.stdout.splitlines()) == 2  # attacked once, scored once
    after = records(folder)
    assert {name: after[name] for name in kept} == kept
    assert {name: content for name, content in outputs(folder).items() if not name.endswith(".partial")} == outputs(done)


# ------------------------------------------------------------------------------------------------------ torchvision


def test_without_torchvision_the_extra_is_named_before_anything_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for old in [name for name in sys.modules if name.startswith("torchvision.")]:
        monkeypatch.delitem(sys.modules, old)
    for text in (
        TINY.replace("{name: plain}", "{name: plain, augment: crop-flip}"),
        TINY.replace("{name: lenet, network: lenet}", "{name: resnet, torchvision: resnet18}"),
        TINY.replace("data: {builtin: photographs}", "data: {torchvision: CIFAR10, root: here}"),
    ):
        assert main(["study", "run", str(written(tmp_path, text)), "--output", str(tmp_path / "out")]) == 2
        assert "pip install -e " in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


@needs_torchvision
def test_augmented_views_are_attacked_and_scored_and_a_resnet_is_trained(tmp_path):
    text = TINY
    for old, new in (
        ("{name: plain}", "{name: policy, augment: 3-1-7}"),
        ("{name: pruning, share: [", "{name: flip, augment: crop-flip, share: ["),
        ("{name: lenet, network: lenet}", "{name: resnet, torchvision: resnet18}"),
        ("epochs: 1", "epochs: 0"),
        ("iterations: 3", "iterations: 1"),
        ("iterations: 5", "iterations: 1"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    folder = tmp_path / "out"
    study("run", written(tmp_path, text), folder)
    originals = np.load(folder / "originals" / "images.npy")
    for defence in ("policy", "flip"):
        views = np.load(folder / "views" / defence / "images.npy")
        assert all(np.abs(view - original).max() > 0.1 for view, original in zip(views, originals, strict=True))
        threat_model = json.loads((folder / f"reconstructions/resnet/{defence}/dlg/threat_model.json").read_text())
        assert threat_model["views"] == [digest(torch.from_numpy(view)[None]) for view in views]
    with pytest.raises(ValueError, match=r"torchvision has no classifier 'resnet19'; near are .*resnet18"):
        build(Model(name="r", torchvision="resnet19"), 4, 32)


@needs_torchvision
def test_semsim_is_one_of_the_scores_where_a_checkpoint_is_given(done, tmp_path):
    from attacker_metrics.semsim import Encoder, Preprocessing, save_encoder, semsim, small_image_resnet

    torch.manual_seed(0)
    encoder = Encoder(small_image_resnet("resnet18"), Preprocessing(32), "resnet18").eval()
    save_encoder(encoder, tmp_path / "semsim.safetensors")
    folder = tmp_path / "out"
    subprocess.run(["cp", "-r", done, folder], check=True)
    study("run", written(tmp_path, TINY + "scores: {semsim: semsim.safetensors}\n"), folder)
    rows = table(folder / "scores.csv")
    found = torch.from_numpy(np.load(folder / "reconstructions/lenet/plain/dlg/images.npy"))
    views = torch.from_numpy(np.load(folder / "views/plain/images.npy"))
    with torch.no_grad():
        expected = semsim(found, views, encoder)
    assert [float(row["semsim"]) for row in rows[:4]] == pytest.approx(expected.tolist(), abs=1e-5)
    assert "semsim" in (folder / "report.html").read_text()


@needs_torchvision
def test_lpips_is_one_of_the_scores_where_torchvision_has_its_weights(done, tmp_path, monkeypatch, alexnet):
    from torchvision.models import AlexNet_Weights
    from torchvision.models import alexnet as untrained

    network, trained = untrained(), (layer for layer in alexnet.net.modules() if isinstance(layer, torch.nn.Conv2d))
    for layer in network.features:
        if isinstance(layer, torch.nn.Conv2d):
            layer.load_state_dict(next(trained).state_dict())
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(network.state_dict(), cache / Path(AlexNet_Weights.IMAGENET1K_V1.url).name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "out"
    subprocess.run(["cp", "-r", done, folder], check=True)
    study("run", written(tmp_path, TINY + "scores: {lpips: true}\n"), folder)
    rows = table(folder / "scores.csv")
    found = torch.from_numpy(np.load(folder / "reconstructions/lenet/plain/dlg/images.npy"))
    views = torch.from_numpy(np.load(folder / "views/plain/images.npy"))
    expected = quality_scores(found, views, lpips_network=alexnet)["lpips"]
    assert [float(row["lpips"]) for row in rows[:4]] == pytest.approx(expected.tolist(), abs=1e-5)
    assert "lpips" in (folder / "report.html").read_text()


def test_a_link_in_the_place_of_half_a_file_is_not_followed(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / ".scores.csv.partial").symlink_to("mine.txt")
    units.write_file(tmp_path / "scores.csv", b"a")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "scores.csv").read_bytes() == b"a"
