"""Every entry of the zoo does what its row of the table says."""

import csv
import hashlib
import json
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference import photographs

from attacker_metrics.commands import cli
from attacker_metrics.obfuscations import (
    FAMILIES,
    KEYS,
    UNDONE_BY,
    ZOO,
    ZOO_VERSION,
    Key,
    Obfuscation,
    Strength,
    obfuscation,
    zoo,
)

SIDE = 48
EVERY = pytest.mark.parametrize("entry", ZOO.values(), ids=list(ZOO))
STEP = 1 / 255


def eight_bit(images):
    return (images * 255).round() / 255


@pytest.fixture(scope="module")
def images():
    """Three 8-bit pictures of 48 x 48: photographs, with black and white in each."""
    found = eight_bit(torch.from_numpy(photographs(SIDE, SIDE)[:3]).float())
    found[:, :, 0, 0], found[:, :, 0, 1] = 0.0, 1.0
    return found


def test_the_table_is_that_of_the_version():
    names = hashlib.sha256("\n".join(ZOO).encode()).hexdigest()[:16]
    assert (ZOO_VERSION, len(ZOO), names) == ("zoo-v1", 147, "e3118182549db8b0")


def test_the_families_are_those_that_were_promised():
    assert FAMILIES == (
        "tone",
        "colour",
        "noise",
        "blur",
        "geometry",
        "permutation",
        "transform",
        "block encryption",
        "pads",
        "covers",
        "mixing",
        "cloaks",
        "quantisation",
        "safe",
    )


@EVERY
def test_the_metadata_are_complete(entry):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.name)
    assert ZOO[entry.name] is entry
    assert entry.family in FAMILIES
    assert entry.key in KEYS
    assert entry.undone_by in UNDONE_BY
    assert entry.summary.endswith(".")
    assert len(entry.source) > 8
    assert (entry.reverse is None) == bool(entry.destroys) or entry.name in ("mixup", "alpha-blend")
    assert (entry.undone_by == "nobody") == (entry.destroys == "everything")
    assert entry.undone_by != "key" or entry.key == "per image"
    assert bool(entry.leaves) == (entry.undone_by == "key" and not entry.independent)
    assert entry.ceiling is None or (entry.destroys and entry.undone_by in ("anyone", "pairs") and entry.ceiling < 0.95)
    assert entry.bounds[0] < entry.bounds[1]
    if entry.strength is not None:
        assert entry.strength.meaning
        assert entry.strength.low <= entry.strength.default <= entry.strength.high
    found = json.loads(json.dumps(entry.metadata(), allow_nan=False))
    assert (found["name"], found["version"]) == (entry.name, "zoo-v1")


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_sent_keeps_shape_dtype_and_bounds(entry, dtype, images):
    before = images.to(dtype)
    sent = entry(before)
    assert torch.equal(before, images.to(dtype))
    assert (sent.shape, sent.dtype) == (images.shape, dtype)
    assert sent.isfinite().all()
    assert sent.amin() >= entry.bounds[0] - 1e-6
    assert sent.amax() <= entry.bounds[1] + 1e-6


@EVERY
def test_a_picture_is_hidden_alike_in_every_batch_and_memory_layout(entry, images):
    names = ["a", "b", "c"]
    sent = entry(images, seed=3, ids=names)
    alone = torch.cat([entry(image[None], seed=3, ids=[name]) for image, name in zip(images, names, strict=True)])
    turned = entry(images.flip(0), seed=3, ids=names[::-1]).flip(0)
    strided = entry(images.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1), seed=3, ids=names)
    assert torch.equal(sent, alone)
    assert torch.equal(sent, turned)
    assert torch.allclose(sent, strided, atol=1e-6)


@EVERY
def test_nothing_depends_on_or_changes_the_global_state(entry, images):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    sent, following = entry(images), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(following, torch.rand(1))
    torch.manual_seed(2)
    assert torch.equal(sent, entry(images))


@EVERY
def test_the_key_is_what_the_table_says(entry, images):
    same = images[:1].expand(12, -1, -1, -1)
    by_id, by_seed = entry(same), torch.cat([entry(images[:1], seed=seed) for seed in range(12)])
    assert bool((by_id == by_id[0]).all()) == (entry.key != "per image")
    assert bool((by_seed == by_seed[0]).all()) == (entry.key == "none")


@EVERY
def test_a_picture_that_can_be_restored_is(entry, images):
    if entry.reverse is None:
        with pytest.raises(ValueError, match=f"{entry.name} has no inverse"):
            entry.undo(images)
        return
    names = ["a", "b", "c"]
    for seed, dtype in ((0, torch.float32), (5, torch.float64)):
        sent = entry(images.to(dtype), seed=seed, ids=names)
        back = entry.undo(sent, seed=seed, ids=names)
        assert (back - images).abs().amax() <= (1e-6 if dtype == torch.float64 else STEP / 10)
    if entry.key != "none":
        wrong = torch.stack([entry.undo(sent, seed=seed, ids=names) for seed in range(6, 18)])
        assert (wrong - images).abs().amax(dim=(1, 2, 3, 4)).amax() > 0.1


@EVERY
def test_strengths_at_both_ends_give_finite_pictures_and_beyond_are_refused(entry):
    generator = torch.Generator().manual_seed(0)
    if entry.strength is None:
        with pytest.raises(ValueError, match="has no strength"):
            entry(torch.zeros(1, 3, 16, 16), strength=1.0)
        return
    for strength in (entry.strength.low, entry.strength.high):
        side = max(entry.side_multiple(strength), 24)
        sent = entry(torch.rand(1, 3, side, side, generator=generator), strength=strength)
        assert sent.shape == (1, 3, side, side)
        assert sent.isfinite().all()
        assert sent.amin() >= entry.bounds[0] - 1e-5
        assert sent.amax() <= entry.bounds[1] + 1e-5
    for strength in (entry.strength.low - 1, entry.strength.high * 2 + 1, math.nan):
        with pytest.raises(ValueError, match=f"{entry.name}: strength is .*from"):
            entry(torch.zeros(1, 3, 16, 16), strength=strength)


@EVERY
def test_odd_sizes_are_hidden_or_refused_with_the_reason(entry):
    image = torch.rand(1, 3, 23, 37, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if entry.side_multiple() > 1:
        with pytest.raises(ValueError, match=f"multiples of {entry.side_multiple()}, got 23 x 37"):
            entry(image)
    elif entry.square:
        with pytest.raises(ValueError, match="square pictures, got 23 x 37"):
            entry(image)
    else:
        sent = entry(image)
        assert sent.shape == image.shape
        assert sent.isfinite().all()
        if entry.reverse is not None:
            assert (entry.undo(sent) - image).abs().amax() <= STEP / 2 + 1e-6
    side = entry.side_multiple()
    assert entry(torch.ones(1, 3, side, side)).isfinite().all()  # the smallest picture of all


@pytest.mark.parametrize("entry", [e for e in ZOO.values() if e.undone_by == "nobody"], ids=lambda entry: entry.name)
def test_what_nobody_can_undo_does_not_depend_on_the_picture(entry, images):
    assert torch.equal(entry(images), entry(1 - images))


@pytest.mark.parametrize("name", ["one-time-xor-pad", "one-time-modulo-pad", "one-time-byte-pad"])
def test_a_pad_that_is_used_once_leaves_the_same_distribution_of_every_picture(name):
    pads = {}
    for value in (0.0, 0.3, 1.0):
        sent = obfuscation(name)(torch.full((64, 3, 16, 16), value), ids=[f"{value} {i}" for i in range(64)])
        levels = 256 if name != "one-time-modulo-pad" else 2**20
        steps = sent * (levels - 1 if levels == 256 else levels)
        assert torch.equal(steps.round(), steps.round().clamp(0, levels - 1))
        assert (steps - steps.round()).abs().amax() < 1e-3  # no finer bits that could tell of a carry
        counts = torch.bincount((steps.round().long() * 64 // levels).flatten(), minlength=64).double()
        expected = sent.numel() / 64
        pads[value] = float(((counts - expected) ** 2 / expected).sum())
    assert all(statistic < 63 + 4 * math.sqrt(2 * 63) for statistic in pads.values()), pads


@pytest.mark.parametrize("entry", [e for e in ZOO.values() if e.independent and e.key == "per image"], ids=lambda e: e.name)
def test_what_is_independent_does_not_correlate_with_the_picture(entry):
    ids, generator = range(500), torch.Generator().manual_seed(0)
    clean = torch.rand(500, 3, 8, 8, generator=generator)
    sent = entry(clean, ids=ids)
    x, y = (side - side.mean(dim=0) for side in (clean, sent))
    correlation = (x * y).sum(dim=0) / (x.square().sum(dim=0) * y.square().sum(dim=0)).sqrt()
    assert correlation.square().mean() * 500 < 1.6  # 1 is expected; of 192 places, six standard errors are .6


def test_a_fixed_key_is_that_of_its_size_and_name():
    grey = torch.full((1, 3, 16, 16), 0.5)
    assert not torch.equal(obfuscation("xor-pad")(grey), obfuscation("byte-pad")(grey))
    assert not torch.equal(obfuscation("xor-pad")(torch.zeros(1, 3, 16, 32))[..., :16], obfuscation("xor-pad")(grey * 0))


def test_randomness_is_the_same_for_ever():
    key, like = Key("zoo-v1", "a name", 7), torch.zeros(0, dtype=torch.float64)
    assert key.permutation("order", 8).tolist() == [5, 1, 2, 7, 3, 4, 6, 0]
    assert key.integers("pad", 256, (6,), like).tolist() == [26, 212, 36, 33, 16, 50]
    assert key.uniform("u", (3,), like).tolist() == pytest.approx(
        [0.49504891107143045, 0.5854281495174004, 0.4267770795316983], abs=1e-15
    )
    assert key.normal("n", (3,), like).tolist() == pytest.approx(
        [1.7723489134388821, 1.2615356096024577, -0.5267844110126131], abs=1e-12
    )
    assert key.laplace("l", (3,), like).tolist() == pytest.approx(
        [-1.8009499608987876, -0.10734416741803894, 0.6150684369460462], abs=1e-12
    )


def test_randomness_follows_its_distribution():
    key, like = Key("moments"), torch.zeros(0, dtype=torch.float64)
    for values, mean, variance in (
        (key.uniform("u", (100_000,), like), 0.5, 1 / 12),
        (key.normal("n", (100_000,), like), 0.0, 1.0),
        (key.laplace("l", (100_000,), like), 0.0, 2.0),
        (key.signs("s", (100_000,), like), 0.0, 1.0),
        (key.integers("i", 10, (100_000,), like).double(), 4.5, 8.25),
    ):
        assert float(values.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / 100_000))
        assert float(values.var()) == pytest.approx(variance, rel=0.05)


def test_ids_of_another_type_or_spelling_are_other_pictures_only_if_they_read_otherwise():
    grey = torch.full((1, 3, 8, 8), 0.5)
    hide = obfuscation("noise-alone")
    assert torch.equal(hide(grey, ids=[1]), hide(grey, ids=["1"]))
    assert not torch.equal(hide(grey, ids=["1"]), hide(grey, ids=["01"]))


def test_laplace_noise_has_the_scale_of_its_epsilon():
    grey = torch.full((8, 3, 32, 32), 0.5)
    noise = obfuscation("laplace-noise")(grey, strength=4.0) - grey
    assert float(noise.abs().mean()) == pytest.approx(1 / 4, rel=0.05)


def test_the_cat_map_comes_back():
    image = torch.rand(1, 3, 12, 12)  # its period at 12 pixels is 12
    assert torch.equal(obfuscation("cat-map")(image, strength=12), image)


def test_error_diffusion_is_that_of_floyd_and_steinberg():
    image = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    values, expected = image[0].clone(), torch.zeros_like(image[0])
    for row in range(9):
        for column in range(14):
            expected[:, row, column] = (values[:, row, column] > 0.5).double()
            error = values[:, row, column] - expected[:, row, column]
            for down, across, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                if row + down < 9 and 0 <= column + across < 14:
                    values[:, row + down, column + across] += error * share / 16
    assert torch.equal(obfuscation("error-diffusion")(image)[0], expected)


def test_a_diffused_byte_is_the_running_exclusive_or():
    image = eight_bit(torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0)))
    chained = (obfuscation("xor-chain")(image) * 255).round().long().flatten()
    padded = (obfuscation("xor-chain").undo(torch.zeros_like(image)) * 255).round().long().flatten()  # the pad alone
    values = (image * 255).round().long().flatten() ^ padded
    assert chained.tolist() == np.bitwise_xor.accumulate(values.numpy()).tolist()


def test_encryption_then_compression_moves_blocks_that_jpeg_compresses_as_before(images):
    sent = obfuscation("etc-colour")(images, strength=8)
    rough = obfuscation("pixel-shuffle")(images)

    def size(pictures):
        return float((obfuscation("jpeg")(pictures, strength=50) - pictures).square().mean())

    assert size(sent) < 1.2 * size(images)
    assert size(rough) > 1.5 * size(images)


def test_bad_input_is_told(images):
    hide = obfuscation("inversion")
    with pytest.raises(TypeError, match=r"float32 or float64.*torch.uint8"):
        hide((images * 255).byte())
    with pytest.raises(TypeError, match="float16"):
        hide(images.half())
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\).*\(3, 48, 48\)"):
        hide(images[0])
    with pytest.raises(ValueError, match=r"B >= 1, got \(0, 3, 48, 48\)"):
        hide(images[:0])
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        hide(images + 0.01)
    with pytest.raises(ValueError, match="NaN"):
        hide(images * math.nan)
    with pytest.raises(ValueError, match="3 pictures but 2 ids"):
        hide(images, ids=[0, 1])
    with pytest.raises(KeyError, match="near: xor-pad"):
        obfuscation("xor_pad")
    with pytest.raises(ValueError, match="family is 'fog'"):
        zoo(family="fog")
    with pytest.raises(ValueError, match="undone_by is 'me'"):
        zoo(undone_by="me")
    with pytest.raises(ValueError, match="whole number"):
        obfuscation("pixelation")(images, strength=2.5)
    with pytest.raises(ValueError, match="key is 'mine'"):
        Obfuscation("x", "tone", "Does.", "nobody", hide.hide, key="mine")
    assert Strength("x", 1, 0, 2, whole=True).checked(2.0, "x") == 2


def test_the_table_is_frozen_and_selects():
    with pytest.raises(TypeError):
        ZOO["mine"] = obfuscation("grey")
    assert zoo() == tuple(ZOO.values())
    assert {entry.undone_by for entry in zoo(undone_by="pairs")} == {"pairs"}
    assert all(entry.family == "tone" for entry in zoo(family="tone"))


def summed(sent):
    """Two numbers that tell one sent picture from another: its mean, and its mean under a ramp."""
    ramp = torch.linspace(-1, 1, sent.numel(), dtype=sent.dtype, device=sent.device).view(sent.shape)
    return [float(sent.mean()), float((sent * ramp).mean())]


def golden_picture():
    return obfuscation("one-decoy-for-all")(torch.zeros(1, 3, 32, 32, dtype=torch.float64))


@EVERY
def test_what_is_sent_is_frozen_and_the_same_on_every_device(entry, device):
    expected = json.loads((Path(__file__).parent / "zoo_golden.json").read_text())[entry.name]
    here = entry(golden_picture(), seed=11, ids=["frozen"])
    for dtype in (torch.float64, torch.float32):
        sent = entry(golden_picture().to(device, dtype), seed=11, ids=["frozen"])
        assert sent.device.type == device.type
        assert summed(sent) == pytest.approx(expected, abs=1e-3)
        assert sent.dtype == torch.float32 or summed(sent) == pytest.approx(summed(here), abs=1e-6)


@EVERY
def test_an_entry_can_be_pickled(entry):
    image, copy = torch.full((1, 3, 16, 16), 0.25), pickle.loads(pickle.dumps(entry))
    assert copy.metadata() == entry.metadata()
    assert torch.equal(copy(image), entry(image))


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / "originals"
    (pictures / "inner").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for name in ("a.png", "inner/b.png", "inner/a.png"):
        pixels = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 6, generator=generator), (48, 48), mode="bicubic")[0]
        Image.fromarray((pixels.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()).save(pictures / name)
    return pictures


NEIGHBOURS = ["yours", "inversion", "noise-alone"]


def run(*arguments):
    return cli.main(["zoo", *map(str, arguments)])


def test_list_and_show(capsys):
    assert run("list") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ZOO)
    assert run("list", "--family", "safe", "--undone-by", "key", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == ["one-time-xor-pad", "one-time-modulo-pad", "one-time-byte-pad"]
    assert run("show", "hue-rotation") == 0
    shown = capsys.readouterr().out
    assert "degrees: 120 (-180 to 180)" in shown
    assert "-0.333333 to 1.33333" in shown
    assert run("show", "hue-rotation", "--json") == 0
    assert json.loads(capsys.readouterr().out) == obfuscation("hue-rotation").metadata()
    assert run("show", "hue-rotate") == 2
    assert "near: hue-rotation" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["npy", "png"])
def test_apply_writes_pairs_that_evaluate_reads(suffix, folder, tmp_path, capsys):
    output = tmp_path / "hidden"
    assert run("apply", "block-shuffle", "--input", folder, "--output", output, "--seed", 4, "--format", suffix) == 0
    assert "hid 3 pictures" in capsys.readouterr().out
    with (output / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["a", "inner/a", "inner/b"]
    assert {row["obfuscation"] for row in rows} == {"zoo-v1/block-shuffle"}
    assert len({(output / row["noisy"]).read_bytes() for row in rows}) == 3
    read = torch.from_numpy(np.array(Image.open(output / rows[0]["clean"]))).permute(2, 0, 1)[None] / 255
    if suffix == "npy":
        sent = torch.from_numpy(np.load(output / rows[0]["noisy"]))[None]
        assert torch.equal(sent, obfuscation("block-shuffle")(read, seed=4, ids=["a"]))
    report = tmp_path / "report"
    betas = ["--betas", "0.5,0.5"]
    assert cli.main(["evaluate", "--manifest", str(output / "manifest.csv"), "--output", str(report), *betas]) == 0
    assert json.loads((report / "summary.json").read_text())["components"]


def test_apply_keys_a_picture_by_its_path(folder, tmp_path):
    assert run("apply", "noise-alone", "--input", folder, "--output", tmp_path / "all") == 0
    (folder / "a.png").unlink()
    assert run("apply", "noise-alone", "--input", folder, "--output", tmp_path / "fewer") == 0
    for name in ("inner/a.npy", "inner/b.npy"):
        assert (tmp_path / "all" / "sent" / name).read_bytes() == (tmp_path / "fewer" / "sent" / name).read_bytes()


def test_compare_puts_a_cloak_beside_its_neighbours(folder, tmp_path, capsys):
    for path in folder.rglob("*.png"):
        sent = tmp_path / "sent" / path.relative_to(folder)
        sent.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - np.array(Image.open(path))).save(sent)
    given = ["--clean", folder, "--noisy", tmp_path / "sent", "--betas", "0.5,0.5", "--suite", "standard-v1"]
    assert run("compare", "inversion", "noise-alone", *given, "--output", tmp_path / "out") == 0
    assert "comparison: " in capsys.readouterr().out
    runs = {name: json.loads((tmp_path / "out/reports" / name / "summary.json").read_text()) for name in NEIGHBOURS}
    assert {one["settings"]["suite"] for one in runs.values()} == {"standard-v1"}
    means = {name: one["components"]["pearson_rgb"]["mean"] for name, one in runs.items()}
    assert means["yours"] == pytest.approx(means["inversion"], abs=1e-6)
    assert means["noise-alone"] < 0.1 < 0.99 < means["yours"]
    compared = json.loads((tmp_path / "out/comparison/comparison.json").read_text())
    assert [one["name"] for one in compared["runs"]] == NEIGHBOURS


def test_compare_refuses_before_it_hides_anything(folder, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("kept")
    given = ["--clean", folder, "--noisy", folder]
    for arguments, message in (
        (["fog", "--output", tmp_path / "new"], "has no obfuscation 'fog'"),
        (["grey", "--output", folder / "new"], "lies in"),
        (["grey", "--output", tmp_path / "full"], "not an empty folder"),
        (["grey", "--output", tmp_path / "new", "--noisy", tmp_path / "full"], "have no partner"),
        (["grey", "--output", tmp_path / "new", "--noisy", tmp_path / "none"], "none"),
    ):
        assert run("compare", *given, *arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_apply_refuses_what_would_lose_something(folder, tmp_path, capsys):
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("kept")
    for arguments, message in (
        (["grey", "--input", folder, "--output", tmp_path / "full"], "not an empty folder"),
        (["grey", "--input", folder, "--output", folder], "lies in"),
        (["grey", "--input", folder, "--output", folder / "sent"], "lies in"),
        (["grey", "--input", tmp_path / "none", "--output", tmp_path / "new"], "not a folder"),
        (["gaussian-noise", "--input", folder, "--output", tmp_path / "new", "--format", "png"], "PNG would clip"),
        (
            ["block-shuffle", "--input", folder, "--output", tmp_path / "new", "--strength", "7"],
            "a.png: block-shuffle needs",
        ),
        (["fog", "--input", folder, "--output", tmp_path / "new"], "has no obfuscation 'fog'"),
    ):
        assert run("apply", *arguments) == 2
        assert message in capsys.readouterr().err
    np.save(folder / "a.npy", np.zeros((3, 48, 48), np.float32))
    assert run("apply", "grey", "--input", folder, "--output", tmp_path / "new") == 2
    assert "differ in their suffix only" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("etc-color", "etc-colour"),
        ("etc-grayscale", "etc-greyscale"),
        ("center-pixelation", "centre-pixelation"),
        ("histogram-equalization", "histogram-equalisation"),
        ("color-matrix", "colour-matrix"),
    ],
)
def test_both_spellings_of_a_name_are_one(given, name):
    assert obfuscation(given) is obfuscation(name)
    assert zoo(family="color") == zoo(family="colour")


def test_no_two_names_differ_in_spelling_alone():
    from attacker_metrics._spelling import known_as

    for names in (tuple(ZOO), tuple(FAMILIES)):
        assert all(known_as(name, names[:at] + names[at + 1 :]) == name for at, name in enumerate(names))
