"""SemSim: unit embeddings, files without pickle, real processes, training that learns and resumes."""

import csv
import importlib.util
import json
import math
import pickle
import sys

import numpy as np
import pytest
import semsim_script
import torch
from conftest import spoil
from PIL import Image
from reference import photographs
from torch import nn
from torchmetrics import MetricCollection

from attacker_metrics.commands.cli import main
from attacker_metrics.faithfulness import Annotations, Scores, faithfulness, read_annotations, read_scores
from attacker_metrics.files.images import read_image
from attacker_metrics.quality import ReconstructionQuality
from attacker_metrics.semsim import Encoder, Preprocessing, SemSim, load_encoder, save_encoder, semsim, small_image_resnet
from attacker_metrics.semsim.checkpoint import CheckpointError, read_training
from attacker_metrics.semsim.scoring import score_table
from attacker_metrics.semsim.training import Recipe, TripletTraining, split, train
from attacker_metrics.semsim.triplets import Triplets, originals_of

HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
needs_torchvision = pytest.mark.skipif(not HAS_TORCHVISION, reason="torchvision is not installed")


def small_cnn(width=8):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
    )


def pairs(side=32):
    clean = torch.from_numpy(photographs(side, side)).float()
    return clean + 0.2 * torch.randn(clean.shape), clean


# ------------------------------------------------------------------------------------------------------ the metric


def test_distances_are_those_of_unit_embeddings():
    noisy, clean = pairs()
    encoder = small_cnn().eval()
    a, b = (encoder(images.clamp(0, 1)).mean(dim=(2, 3)).double() for images in (noisy, clean))
    cosine = nn.functional.cosine_similarity(a, b)
    torch.testing.assert_close(semsim(noisy, clean, encoder).double(), (2 * (1 - cosine)).sqrt(), rtol=0, atol=1e-4)
    torch.testing.assert_close(semsim(noisy, clean, encoder, distance="cosine").double(), 1 - cosine, rtol=0, atol=1e-5)
    torch.testing.assert_close(semsim(noisy, clean, encoder, similarity=True).double(), cosine, rtol=0, atol=1e-5)


def test_l2_is_the_root_of_twice_the_cosine_distance_also_close_to_zero():
    noisy, clean = pairs()
    for strength in (1.0, 1e-2, 1e-4):
        close = clean + strength * (noisy - clean)
        l2, cosine = (semsim(close, clean, nn.Flatten(), distance=distance) for distance in ("l2", "cosine"))
        torch.testing.assert_close(l2, (2 * cosine).sqrt(), rtol=1e-4, atol=0)
    assert semsim(clean, clean, nn.Flatten()).tolist() == [0] * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_images_of_another_precision_than_the_encoder(dtype):
    noisy, clean = (images.half() for images in pairs())  # values that every precision holds
    encoder = small_cnn().eval()
    wanted = semsim(noisy.float(), clean.float(), encoder)
    torch.testing.assert_close(semsim(noisy.to(dtype), clean.to(dtype), encoder), wanted)
    in_double = semsim(noisy.double(), clean.double(), encoder.double())
    assert in_double.dtype == torch.float64
    torch.testing.assert_close(in_double.float(), wanted, rtol=0, atol=1e-5)


def test_the_scale_of_embeddings_does_not_matter():
    noisy, clean = pairs()

    class Scaled(nn.Module):
        def forward(self, images):
            return images.flatten(1) * (1 + 99 * images.mean(dim=(1, 2, 3))[:, None])

    torch.testing.assert_close(semsim(noisy, clean, Scaled()), semsim(noisy, clean, nn.Flatten()), rtol=0, atol=1e-5)


def test_the_metric_is_the_mean_over_images_whatever_the_batches():
    noisy, clean = pairs()
    for settings in ({}, {"distance": "cosine"}, {"similarity": True}):
        metric = SemSim(small_cnn(), **settings)
        scores = semsim(noisy, clean, metric.network, **settings)
        torch.testing.assert_close(metric.scores(noisy, clean), scores)
        for part in (slice(0, 1), slice(1, 4)):
            metric.update(noisy[part], clean[part])
        torch.testing.assert_close(metric.compute(), scores.mean(), rtol=0, atol=1e-6)
        assert int(metric.count) == 4
    assert SemSim(small_cnn()).leakage_direction == "lower"
    assert SemSim(small_cnn(), similarity=True).leakage_direction == "higher"


def test_a_score_does_not_depend_on_its_batch_even_while_a_model_trains():
    noisy, clean = pairs()
    metric = SemSim(small_cnn())
    module = nn.ModuleDict({"metric": metric, "model": nn.Linear(2, 2)}).train()
    assert module.training
    alone = torch.cat([metric.scores(noisy[k : k + 1], clean[k : k + 1]) for k in range(4)])
    torch.testing.assert_close(metric.scores(noisy, clean), alone, rtol=0, atol=1e-6)


def test_forward_has_a_gradient_and_keeps_no_graph():
    noisy, clean = pairs()
    metric = SemSim(small_cnn())
    for _ in range(3):
        noisy = noisy.detach().requires_grad_()
        metric(noisy, clean).backward()
        assert noisy.grad.isfinite().all()
        assert noisy.grad.abs().max() > 0
    assert not any(value.requires_grad for value in metric.metric_state.values())
    same = clean.clone().requires_grad_()
    semsim(same, clean, nn.Flatten()).sum().backward()
    assert same.grad.isfinite().all()


def test_two_encoders_are_two_metrics_in_a_plain_collection_and_equal_ones_are_one():
    noisy, clean = pairs()
    torch.manual_seed(1)
    metrics = MetricCollection(
        {"one": SemSim(small_cnn()), "two": SemSim(small_cnn()), "cos": SemSim(nn.Flatten(), "cosine")}
    )
    metrics.update(clean, clean)  # all read 0: states of the same names would be merged for good
    metrics.update(noisy, clean)
    values = metrics.compute()
    assert len({round(float(value), 6) for value in values.values()}) == 3


def test_it_survives_pickle_state_dict_merge_and_reset():
    noisy, clean = pairs()
    metric = SemSim(small_cnn())
    metric.persistent(True)
    metric.update(noisy, clean)
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.compute() == metric.compute()
    other = SemSim(small_cnn())
    other.network.load_state_dict(metric.network.state_dict())
    twin = SemSim(other.network)
    twin.merge_state(metric)
    twin.update(clean, clean)
    torch.testing.assert_close(twin.compute(), metric.compute() / 2)
    metric.reset()
    assert math.isnan(metric.compute()) if metric.update_called else int(metric.count) == 0


def test_it_joins_the_quality_metrics_with_its_direction():
    noisy, clean = pairs()
    quality = ReconstructionQuality(("mse",), extra={"semsim": SemSim(small_cnn())})
    quality.update(noisy, clean)
    assert set(quality.compute()) == {"mse", "semsim"}
    assert quality.leakage_directions == {"mse": "lower", "semsim": "lower"}


def test_what_cannot_be_scored_is_an_error():
    noisy, clean = pairs()
    with pytest.raises(ValueError, match="1 of 4 reconstructions hold NaN"):
        SemSim(small_cnn()).update(spoil(noisy, 1), clean)
    with pytest.raises(ValueError, match="they must lie in"):
        semsim(noisy, 2 * clean, small_cnn())
    with pytest.raises(ValueError, match="distance is 'l1'; there are l2, cosine"):
        SemSim(small_cnn(), "l1")
    metric = SemSim(small_cnn())
    metric.update(noisy[:0], clean[:0])
    assert int(metric.count) == 0


@pytest.fixture
def processes(request):
    """Where three processes left what they found."""
    if HAS_TORCHVISION and "cpu_torchvision" in sys.modules:
        pytest.skip("the plug-in for torchvision does not reach other processes")
    return request.getfixturevalue("three_processes")[0]


def test_processes_with_uneven_and_empty_shares_return_the_numbers_of_one(processes):
    gathered = torch.load(processes / "semsim_script" / "found.pt", weights_only=True)
    alone = semsim_script.metrics()
    for rank in semsim_script.SHARES:
        for preds, target in semsim_script.batches(rank):
            for metric in alone:
                metric.update(preds, target)
    for values in gathered:
        for value, metric in zip(values, alone, strict=True):
            torch.testing.assert_close(value, metric.compute(), rtol=0, atol=1e-7)


# ---------------------------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_holds_weights_preprocessing_and_facts(tmp_path):
    noisy, clean = pairs()
    encoder = Encoder(small_cnn(), Preprocessing(24, (0.4, 0.5, 0.6), (0.2, 0.2, 0.3))).eval()
    save_encoder(encoder, tmp_path / "mine.safetensors", {"epochs": 3})
    loaded = load_encoder(tmp_path / "mine.safetensors", small_cnn())
    assert loaded.preprocessing == encoder.preprocessing
    assert torch.equal(semsim(noisy, clean, loaded), semsim(noisy, clean, encoder))
    assert read_training(tmp_path / "mine.safetensors") == {"epochs": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["mine.safetensors"]
    with pytest.raises(CheckpointError, match="holds a module of your own; pass one of its shape"):
        load_encoder(tmp_path / "mine.safetensors")
    with pytest.raises(CheckpointError, match="does not fit the backbone"):
        load_encoder(tmp_path / "mine.safetensors", small_cnn(4))


def test_other_files_are_no_checkpoints(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="is not a SemSim checkpoint of this library"):
        SemSim(tmp_path / "other.safetensors")
    for name, metadata in {
        "no architecture": {},
        "no JSON": {"architecture": "custom", "preprocessing": "{"},
        "a list": {"architecture": "custom", "preprocessing": "[]"},
        "nested": {"architecture": "custom", "preprocessing": "[" * 100_000},
        "no size": {"architecture": "custom", "preprocessing": '{"mean": [0, 0, 0], "std": [1, 1, 1]}'},
        "two colours": {"architecture": "custom", "preprocessing": '{"size": 8, "mean": [0, 0], "std": [1, 1]}'},
    }.items():
        begin = {"format": "attacker-metrics semsim 1", "training": "[3"}
        save_file({"weight": torch.ones(1)}, tmp_path / f"{name}.safetensors", {**begin, **metadata})
        with pytest.raises(CheckpointError, match="does not say what architecture and preprocessing"):
            load_encoder(tmp_path / f"{name}.safetensors", small_cnn())
        with pytest.raises(CheckpointError, match="about its training cannot be read"):
            read_training(tmp_path / f"{name}.safetensors")
    with pytest.raises(FileNotFoundError):
        read_training(tmp_path / "none.safetensors")
    torch.save(small_cnn().state_dict(), tmp_path / "pickle.pt")
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        read_training(tmp_path / "pickle.pt")
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        SemSim(tmp_path / "pickle.pt")
    with pytest.raises(FileNotFoundError, match="there is no such checkpoint"):
        SemSim(tmp_path / "nothing")


@needs_torchvision
@pytest.mark.parametrize(("architecture", "features"), [("resnet18", 512), ("resnet50", 2048)])
def test_resnets_for_small_images(architecture, features, tmp_path):
    network = small_image_resnet(architecture).eval()
    stem = []
    network.layer1.register_forward_hook(lambda _, inputs, __: stem.append(inputs[0].shape))
    with torch.no_grad():
        assert network(torch.rand(1, 3, 32, 32)).shape == (1, features)
    assert stem == [(1, 64, 32, 32)]  # nothing is lost before the first block
    encoder = Encoder(network, Preprocessing(32), architecture)
    save_encoder(encoder, tmp_path / "resnet.safetensors")
    noisy, clean = pairs(40)
    metric = SemSim(tmp_path / "resnet.safetensors")
    assert torch.equal(metric.scores(noisy, clean), semsim(noisy, clean, encoder))


@pytest.mark.skipif(HAS_TORCHVISION, reason="torchvision is installed")
def test_without_torchvision_the_resnets_say_which_extra_has_it():
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*\[semsim\]"):
        small_image_resnet()


# ------------------------------------------------------------------------------------------------------- training


def degraded_photographs(folder, per_dataset=12, names=("first", "second")):
    """Crops of photographs: reconstructions with little noise are filed as recognisable, blurs as not."""
    rng = np.random.default_rng(0)
    rows = {name: [] for name in ("dataset", "model", "attack", "original", "reconstruction", "recognizable")}
    picture = photographs(96, 96)
    for dataset in names:
        for number in range(per_dataset):
            top, left = rng.integers(0, 64, 2)
            crop = picture[rng.integers(4), :, top : top + 32, left : left + 32]
            made = {"original": crop}
            for k in range(2):
                made[f"seen-{k}"] = crop + 0.05 * rng.normal(size=crop.shape)
                made[f"unseen-{k}"] = crop.mean(axis=(1, 2), keepdims=True) + 0.3 * rng.normal(size=crop.shape)
            for name, pixels in made.items():
                path = folder / dataset / f"{number}-{name}.png"
                path.parent.mkdir(exist_ok=True, parents=True)
                Image.fromarray((255 * pixels.clip(0, 1)).round().astype(np.uint8).transpose(1, 2, 0)).save(path)
                if name != "original":
                    facts = (dataset, name.split("-")[0], "test", f"{dataset}/{number}-original.png")
                    for column, value in zip(
                        rows, (*facts, f"{dataset}/{number}-{name}.png", int("un" not in name)), strict=True
                    ):
                        rows[column].append(value)
    return rows


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return folder, write_material(folder)


def write_material(folder):
    rows = degraded_photographs(folder)
    table = folder / "annotations.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows)
        writer.writerows(zip(*rows.values(), strict=True))
    return table


def tiny_recipe(**changes):
    return Recipe(**{"epochs": 8, "batch_size": 8, "validation": 0.2, **changes})


@pytest.fixture(scope="module")
def trained(material, tmp_path_factory):
    folder, table = material
    output = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    report = train(
        read_annotations(table), folder, output, tiny_recipe(hold_out="second"), backbone=small_cnn(), accelerator="cpu"
    )
    return output, report


def test_training_learns_what_is_recognisable_and_holds_a_data_set_out(trained, material):
    output, report = trained
    folder, table = material
    assert report["originals"] == {"train": 10, "validation": 2, "test": 12}
    assert report["results"]["test/accuracy"] >= 0.9
    annotations = read_annotations(table)
    encoder = load_encoder(output / "semsim.safetensors", small_cnn())
    scored = score_table(annotations, folder, lambda preds, target: {"semsim": semsim(preds, target, encoder)}, size=32)
    outcome = faithfulness(Scores(scored["reconstruction"], {"semsim": scored["semsim"]}), annotations, draws=100)
    assert outcome.image.statistics["semsim"]["roc_auc"].value > 0.9
    assert json.loads((output / "training.json").read_text()) == report
    assert read_training(output / "semsim.safetensors") == report
    assert list((output / "tensorboard").glob("events.out.tfevents*"))


def test_the_schedule_is_the_papers(trained):
    output, _ = trained
    last = torch.load(output / "checkpoints" / "last.ckpt", weights_only=True)
    (optimizer,) = last["optimizer_states"]
    (group,) = optimizer["param_groups"]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 5e-4)
    assert group["lr"] == pytest.approx(0.05 / 1000)
    assert dict(last["lr_schedulers"][0]["milestones"]) == {3: 1, 5: 1, 7: 1}


def test_a_run_that_was_stopped_resumes_and_another_recipe_is_refused(material, tmp_path):
    folder, table = material
    annotations, recipe = read_annotations(table), tiny_recipe(epochs=4)
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        train(annotations, folder, tmp_path, recipe, backbone=small_cnn(), resume=True)
    stopped = train(annotations, folder, tmp_path, recipe, backbone=small_cnn(), accelerator="cpu", max_steps=3)
    assert stopped["epochs"] == 1  # of 20 originals three batches make an epoch
    with pytest.raises(ValueError, match=r"margin was 1\.0, not 0\.5"):
        train(annotations, folder, tmp_path, tiny_recipe(epochs=4, margin=0.5), backbone=small_cnn(), resume=True)
    backbone, steps = small_cnn(), []
    backbone.register_forward_pre_hook(lambda module, _: steps.append(1) if module.training else None)
    finished = train(annotations, folder, tmp_path, recipe, backbone=backbone, resume=True, accelerator="cpu")
    assert finished["epochs"] == 4
    assert len(steps) == 3 * 3  # the first epoch was not trained again


def test_a_damaged_checkpoint_a_missing_device_and_a_diverging_run_are_told_and_leave_no_encoder(material, tmp_path):
    folder, table = material
    annotations, recipe = read_annotations(table), tiny_recipe(epochs=1)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.parent.mkdir()
    for damaged in (b"", b"no checkpoint", b"PK\x03\x04 cut short"):
        last.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"last\.ckpt cannot be resumed from"):
            train(annotations, folder, tmp_path, recipe, backbone=small_cnn(), resume=True)
    with pytest.raises(ValueError, match="Lightning cannot train with"):
        train(annotations, folder, tmp_path, recipe, backbone=small_cnn(), accelerator="cpu", devices="0")
    broken = small_cnn()
    broken[0].weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match=r"became NaN or infinite.*learning_rate is 0\.05"):
        train(annotations, folder, tmp_path, recipe, backbone=broken, accelerator="cpu")
    assert not (tmp_path / "semsim.safetensors").exists()


@pytest.mark.parametrize(("epochs", "milestones"), [(1, []), (2, [1, 1]), (100, [37, 62, 87])])
def test_the_first_epoch_has_the_full_rate(epochs, milestones):
    (optimizer,), (schedule,) = TripletTraining(Recipe(epochs=epochs), small_cnn()).configure_optimizers()
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert sorted(schedule.milestones.elements()) == milestones


def test_training_on_several_processes(processes):
    folder = processes / "semsim_training_script"
    assert torch.load(folder / "found.pt", weights_only=True)["validation/loss"] > 0
    assert load_encoder(folder / "run" / "semsim.safetensors", small_cnn()).architecture == "custom"


def test_early_stopping(material, tmp_path):
    folder, table = material
    recipe = tiny_recipe(epochs=40, patience=1, learning_rate=1e-9)
    report = train(read_annotations(table), folder, tmp_path, recipe, backbone=small_cnn(), accelerator="cpu")
    assert report["epochs"] < 40


def test_originals_without_both_kinds_are_reported_and_skipped():
    votes = [1, 0, 1, 1, 0, np.nan]
    originals = ["a", "a", "b", "b", "c", "d"]
    names = [str(k) for k in range(6)]
    table = Annotations(["s"] * 6, ["m"] * 6, ["x"] * 6, originals, names, {}, recognizable=votes)
    parts = split(table, Recipe(validation=0))
    assert [original.name for original in parts.train] == ["s / a"]
    assert [original.name for original in parts.skipped] == ["s / b", "s / c", "s / d"]
    with pytest.raises(ValueError, match="--hold-out t: there is no such data set; there are s"):
        split(table, Recipe(hold_out="t"))
    with pytest.raises(ValueError, match="no original to train on"):
        split(table, Recipe(hold_out="s"))


def test_triplets_hold_an_original_and_its_own_reconstructions(material):
    folder, table = material
    originals = originals_of(read_annotations(table))
    plain = Triplets(originals, folder, 32, augment=False)
    anchor, positive, negative = plain[3]
    for image, path in ((anchor, originals[3].path), (positive, originals[3].recognizable[0])):
        torch.testing.assert_close(image, read_image(folder / path).pixels)
    assert (anchor - positive).square().mean() < (anchor - negative).square().mean()
    assert "un" not in originals[3].recognizable[0].split("-")[1]
    torch.manual_seed(0)
    augmented = Triplets(originals, folder, 32, augment=True)
    assert not torch.equal(augmented[3][0], augmented[3][0])


def test_recipes_are_checked():
    for wrong in ({"margin": 0}, {"epochs": 0}, {"validation": 1.0}, {"patience": 3, "validation": 0}):
        with pytest.raises(ValueError):
            Recipe(**wrong)


def test_a_missing_image_is_named_before_anything_is_written(material, tmp_path):
    folder, table = material
    annotations = read_annotations(table)
    with pytest.raises(FileNotFoundError, match=r"images of the table are not in .*, e.g. first/0-original.png"):
        train(annotations, folder / "first", tmp_path / "out", tiny_recipe(), backbone=small_cnn())
    assert not (tmp_path / "out").exists()


def test_alignment_is_flagged_in_the_score_table(material, tmp_path):
    folder, table = material
    scored = score_table(
        read_annotations(table), folder, lambda p, t: {"mse": (p - t).square().mean(dim=(1, 2, 3))}, size=32, max_shift=1
    )
    seen = [k for k, name in enumerate(scored["reconstruction"]) if "-seen" in name]
    assert not any(scored["flipped"][k] or scored["shift_y"][k] or scored["shift_x"][k] for k in seen)
    assert set(scored) == {"reconstruction", "mse", "flipped", "shift_y", "shift_x"}


@needs_torchvision
def test_the_command_line_trains_scores_and_feeds_faithfulness(material, tmp_path, capsys):
    folder, table = material
    files = ["--annotations", str(table), "--images", str(folder)]
    train_ = ["semsim", "train", *files, "--output", str(tmp_path / "run"), "--accelerator", "cpu", "--epochs", "1"]
    assert main([*train_, "--hold-out", "second", "--size", "16", "--batch-size", "4"]) == 0
    assert "test/accuracy" in capsys.readouterr().out
    checkpoint = tmp_path / "run" / "semsim.safetensors"
    scores = tmp_path / "scores.csv"
    score = ["semsim", "score", *files, "--checkpoint", str(checkpoint), "--output", str(scores), "--align", "1"]
    assert main(score) == 0
    found = read_scores(scores)
    assert list(found.columns) == ["mse", "psnr", "ssim", "semsim"]
    assert found.aligned is not None
    assert main(["faithfulness", "--scores", str(scores), "--annotations", str(table), "--draws", "100"]) == 0
    assert "One judge only (recognizable)" in capsys.readouterr().out


def test_the_command_line_says_what_is_wrong(material, tmp_path, capsys):
    folder, table = material
    files = ["--annotations", str(table), "--images", str(folder), "--output", str(tmp_path / "run")]
    assert main(["semsim", "train", *files, "--hold-out", "third"]) == 2
    assert "there is no such data set; there are first, second" in capsys.readouterr().err
    assert main(["semsim", "score", *files[:4], "--checkpoint", "none", "--output", str(tmp_path / "s.csv")]) == 2
    assert "there is no such checkpoint" in capsys.readouterr().err
    for size in ("0", "-5"):
        score = ["semsim", "score", *files[:4], "--checkpoint", "none", "--size", size]
        assert main([*score, "--output", str(tmp_path / "s.csv")]) == 2
        assert f"--size is {size}; it is at least 16" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("command", ["score", "train"])
def test_a_picture_that_an_annotation_table_names_is_no_output_even_with_overwrite(tmp_path, capsys, command, link):
    picture = tmp_path / "r0.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(picture)
    table = tmp_path / "annotations.csv"
    table.write_text("dataset,model,attack,original,reconstruction,annotator_a\nd,m,a,o0.png,r0.png,1\n")
    output = tmp_path / ("scores.csv" if command == "score" else "semsim.safetensors")
    getattr(output, link)(picture)
    before = picture.read_bytes()
    files = ["--annotations", str(table), "--images", str(tmp_path), "--overwrite"]
    files += ["--checkpoint", "nowhere", "--output", str(output)] if command == "score" else ["--output", str(tmp_path)]
    assert main(["semsim", command, *files]) == 2
    assert f"{output} is an input ({picture})" in capsys.readouterr().err
    assert picture.read_bytes() == before
