"""Oracles: what each undoes, against searches by brute force; what they make of unrelated and of flat pictures."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import SMALL, photo_pair

from attacker_metrics import MultiAttackerPrivacy, Pair
from attacker_metrics.attackers import luma
from attacker_metrics.obfuscations import obfuscation
from attacker_metrics.reading.kinds import kinds
from attacker_metrics.scoring.components import Component
from attacker_metrics.scoring.oracles import (
    AssignedBlocks,
    CorrelationRatio,
    Fit,
    MutualInformation,
    Oracle,
    Orientation,
    Registration,
    RolledRows,
    Sight,
    ToneTable,
    unwrap,
)
from attacker_metrics.scoring.oracles.correlation import centred, explained_moved, explained_rolled
from attacker_metrics.scoring.similarity import SquaredPearson
from attacker_metrics.scoring.suites import STANDARD_V1, STANDARD_V2, added_components

pytest.importorskip("scipy", reason="AssignedBlocks needs SciPy, of the extra cli")

ADDED = [name for name in STANDARD_V2.added if name not in STANDARD_V1.added]
BLIND = ("denoise", "assemble")
ORACLES = [name for name in ADDED if kinds()[name].attacker not in BLIND]
ORIENTED = Oracle(Orientation(), SquaredPearson())
REGISTERED = Oracle(Registration(), SquaredPearson())
TABLE = Oracle(ToneTable(), SquaredPearson())
ROWS = Oracle(RolledRows(), SquaredPearson())


def photographs(height=64, width=64):
    """Four different ones, float32 ``(4, 3, height, width)``."""
    return torch.tensor(photo_pair("noise", height, width)[1]).float()


def gray(height=64, width=64):
    return luma(photographs(height, width))


def suite_scores(noisy, clean, betas=SMALL):
    table = {name: added_components("standard-v2", betas=betas)[name] for name in ORACLES}
    return dict(zip(table, Pair(noisy, clean).scores(table.values()), strict=True))


def turns(x):
    """The eight orientations, by NumPy, which is not what the library turns by."""
    return [np.ascontiguousarray(np.rot90(side, k)) for side in (x, x[:, ::-1]) for k in range(4)]


def share(a, b, whole):
    """What of a picture's squares b less its mean is taken away by the best fit to a, in float64."""
    a, b = a - a.mean(), b - b.mean()
    power = (a * a).sum()
    return (a * b).sum() ** 2 / power / ((whole - whole.mean()) ** 2).sum() if power > 0 else 0.0


def test_shares_are_those_of_a_fit_at_every_place():
    """One place after the other."""
    generator = np.random.default_rng(0)
    noisy, clean = generator.random((9, 7)), generator.random((8, 11))
    sent, target = (centred(torch.tensor(x)) for x in (noisy, clean))
    found = explained_moved(sent, torch.ones_like(sent), target)
    for down in range(-8, 8):
        for right in range(-6, 11):
            rows, columns = slice(max(0, down), min(8, down + 9)), slice(max(0, right), min(11, right + 7))
            b = clean[rows, columns]
            a = noisy[rows.start - down : rows.stop - down, columns.start - right : columns.stop - right]
            expected = share(a, b, clean) if b.size >= 0.25 * clean.size else 0.0
            assert float(found[down, right]) == pytest.approx(expected, abs=1e-9), (down, right)
    other = generator.random((8, 11))
    found = explained_rolled(centred(torch.tensor(other)), target)
    for down, right in itertools.product(range(8), range(11)):
        expected = share(np.roll(other, (down, right), (0, 1)), clean, clean)
        assert float(found[down, right]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", [(64, 64), (61, 83), (176, 120)])
def test_every_orientation_and_roll_is_undone(size):
    clean = gray(*size)
    for k in range(8):
        noisy = torch.stack([torch.tensor(turns(x.numpy())[k]) for x in clean[:, 0]])[:, None]
        if noisy.shape == clean.shape:
            score = ORIENTED(0.7 - 0.1 * noisy.roll((17, -23), dims=(2, 3)), clean)
            assert (score > 0.9999).all(), (k, score)


def test_pictures_that_are_not_square_are_turned_and_compared_where_they_overlap():
    clean = gray(48, 64)
    noisy = torch.stack([torch.rot90(x, 1, (1, 2)) for x in clean])
    noisy = torch.nn.functional.pad(noisy[:, :, :48], (8, 8))
    cut = ORIENTED(noisy, clean)
    assert (cut > 0.5).sum() >= 3
    assert (cut > ORIENTED(noisy, clean.roll(1, 0)) + 0.1).all()


@pytest.mark.parametrize("fill", ["zeros", "edges"])
def test_moved_pictures_are_read_where_they_are_seen(fill):
    clean = gray(96, 96)
    padded = torch.nn.functional.pad(clean, (20, 0, 30, 0), **({} if fill == "zeros" else {"mode": "replicate"}))
    noisy = padded[:, :, :96, :96].flip(3)
    found = Orientation()(noisy, clean)
    exact = (found.noisy - clean)[:, 0, :66, :76].abs().amax(dim=(1, 2)) < 1e-3
    assert exact.sum() >= 3  # one is a night sky, whose rocket has left


@pytest.mark.parametrize(
    ("degrees", "zoom", "mirrored"), [(5, 1.0, False), (-30, 0.7, True), (17, 1.25, False), (12, 1.4, True)]
)
def test_rotation_scale_and_mirror_are_undone(degrees, zoom, mirrored):
    """The pictures are turned by scikit-image, through cubic splines."""
    transform = pytest.importorskip("skimage.transform", reason="needs scikit-image, of the extra test")
    clean = photographs(128, 128)
    clean = luma(clean)
    centre = transform.SimilarityTransform(translation=(-63.5, -63.5))
    turn = transform.SimilarityTransform(scale=zoom, rotation=np.deg2rad(degrees))
    back = transform.SimilarityTransform(translation=(68.5, 60.5))
    map_ = (centre + turn + back).inverse
    noisy = [transform.warp(x[:, ::-1] if mirrored else x, map_, order=3) for x in clean[:, 0].double().numpy()]
    noisy = torch.tensor(np.stack(noisy))[:, None].float()
    generator = torch.Generator().manual_seed(0)
    disguised = 0.5 - 0.3 * noisy + 0.3 * 0.05 * torch.randn(noisy.shape, generator=generator)
    own, other = REGISTERED(disguised, clean), REGISTERED(disguised, clean.roll(1, 0))
    assert (own > 0.25).all(), own
    assert (own > other + 0.1).all(), (own, other)


def test_registration_finds_what_is_only_turned():
    clean = gray()
    assert (REGISTERED(1 - clean.rot90(1, (2, 3)), clean) > 0.999).all()


def test_unrelated_photographs_stay_low():
    clean = gray(128, 128)
    for oracle, most in ((ORIENTED, 0.6), (REGISTERED, 0.65), (ROWS, 0.05)):
        for shift in (1, 2, 3):
            assert (oracle(clean, clean.roll(shift, 0)) < most).all(), oracle


def test_the_table_is_that_of_a_cross_validated_regression():
    """One channel, two passes over the pixels, in NumPy."""
    generator = np.random.default_rng(0)
    noisy, clean = generator.integers(0, 5, (16, 16)) / 4, generator.random((16, 16))
    clean += np.cos(40 * noisy)
    squares = np.add.outer(np.arange(16) // 4, np.arange(16) // 4) % 2
    level, centred = (noisy * 4).astype(int), clean - clean.mean()
    expected = np.zeros((16, 16))
    for colour in (0, 1):
        for value in range(5):
            learnt = (squares == 1 - colour) & (level == value)
            expected[(squares == colour) & (level == value)] = centred[learnt].sum() / (learnt.sum() + 2)
    found = ToneTable()(*(torch.tensor(x)[None, None] for x in (noisy, clean)))
    np.testing.assert_allclose(found.noisy[0, 0] - clean.mean(), expected, atol=1e-9)


@pytest.mark.parametrize(
    "name", ["gamma", "bit-reversal", "gray-code", "bit-plane-shuffle", "substitution-table", "channel-permutation"]
)
def test_tables_of_values_are_undone(name):
    clean = (photographs(96, 96) * 255).round() / 255
    own = TABLE(obfuscation(name)(clean), luma(clean))
    assert (own > 0.7).all(), own
    assert (own > 2 * TABLE(obfuscation(name)(clean), luma(clean).roll(1, 0))).all()


def test_a_byte_or_a_number_for_the_whole_picture_is_undone():
    clean = (photographs(96, 96) * 255).round() / 255
    xored = torch.bitwise_xor((clean * 255).round().int(), 0b10110101) / 255
    assert (TABLE(xored, luma(clean)) > 0.7).all()
    smooth = torch.nn.functional.avg_pool2d(clean, 5, 1, 2)
    added = (smooth + torch.tensor([0.3, 0.55, 0.8]).view(3, 1, 1)) % 1
    assert (SquaredPearson()(unwrap(added), luma(smooth)) > 0.9).all()


def test_noise_teaches_the_table_nothing():
    clean = photographs(96, 96)
    assert (TABLE(torch.rand(clean.shape), luma(clean)) < 0.01).all()


def test_unwrapping_gives_back_what_has_no_steps():
    smooth = torch.nn.functional.avg_pool2d(photographs(50, 41).double(), 7, 1, 3)
    expected = luma(3 * smooth)
    found = unwrap(3 * smooth % 1)
    torch.testing.assert_close(found, expected - expected.mean(dim=(2, 3), keepdim=True), atol=1e-9, rtol=0)


def test_the_correlation_ratio_is_the_share_of_variance_between_levels():
    generator = np.random.default_rng(1)
    noisy = generator.integers(0, 4, (2, 1, 12, 10)) / 3
    clean = generator.random(noisy.shape) + (noisy == 1 / 3)
    found = CorrelationRatio()(torch.tensor(noisy), torch.tensor(clean))
    for x, y, score in zip(noisy, clean, found, strict=True):
        within = sum(((y[x == v] - y[x == v].mean()) ** 2).sum() for v in np.unique(x))
        assert float(score) == pytest.approx(1 - within / ((y - y.mean()) ** 2).sum(), abs=1e-12)


def test_mutual_information_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn, of the extra faithfulness")
    generator = np.random.default_rng(2)
    noisy = generator.integers(0, 4, (3, 1, 12, 10)) / 3
    clean = (3 * noisy + generator.integers(0, 2, noisy.shape)).round() % 4 / 3
    found = MutualInformation()(torch.tensor(noisy), torch.tensor(clean))
    expected = [
        metrics.normalized_mutual_info_score(
            np.unique(x, return_inverse=True)[1].ravel(), np.unique(y, return_inverse=True)[1].ravel()
        )
        for x, y in zip(noisy, clean, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_blocks_are_assigned_as_the_best_of_all_permutations():
    generator = np.random.default_rng(3)
    noisy, clean = generator.random((2, 8, 8))
    blocks = [[x[i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)] for x in (noisy, clean)]
    x, y = ([block - block.mean() for block in side] for side in blocks)

    def explained(a, b):
        return max((t * b).sum() ** 2 / (t * t).sum() for t in turns(a))

    table = [[explained(a, b) for b in y] for a in x]
    best = max(sum(table[i][k] for i, k in enumerate(order)) for order in itertools.permutations(range(4)))
    found = AssignedBlocks(4)(*(torch.tensor(side)[None, None] for side in (noisy, clean)))
    assert float(found) == pytest.approx(best / sum((b * b).sum() for b in y), abs=1e-12)


def test_shuffled_turned_and_negated_blocks_are_read():
    clean = photographs(96, 96)
    for name in ("block-shuffle-per-image", "etc-colour"):
        own = AssignedBlocks()(luma(obfuscation(name)(clean)), luma(clean))
        other = AssignedBlocks()(luma(obfuscation(name)(clean)), luma(clean).roll(1, 0))
        assert (own > 0.9).all(), own
        assert (other < 0.8).all(), other


def test_rolled_rows_and_columns_are_read():
    clean = photographs(96, 80)
    noisy = obfuscation("row-rolling-per-image")(clean)
    assert (ROWS(luma(noisy), luma(clean)) > 0.99).all()
    columns = Oracle(RolledRows(columns=True), SquaredPearson())
    assert (columns(luma(noisy.mT), luma(clean.mT)) > 0.99).all()


@pytest.mark.parametrize("flat", ["noisy", "clean", "both"])
def test_flat_pictures_score_0(flat):
    clean = photographs(24, 31)[:2]
    noisy = torch.full_like(clean, 0.3) if flat != "clean" else clean
    clean = torch.full_like(clean, 0.7) if flat != "noisy" else clean
    for name, score in suite_scores(noisy, clean).items():
        assert (score < 1e-12).all(), (name, score)


@pytest.mark.parametrize("size", [(22, 22), (23, 31), (47, 22)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scores_lie_between_0_and_1_whatever_size_and_dtype(size, dtype):
    clean = photographs(*size)
    for noisy in (clean, 1 - clean.flip(2), 1e4 * torch.randn(clean.shape)):
        for name, score in suite_scores(noisy.to(dtype), clean.to(dtype)).items():
            assert score.isfinite().all(), name
            assert (score >= 0).all(), name
            assert (score <= 1).all(), name


def test_a_picture_scores_the_same_alone():
    clean = photographs(48, 40)
    noisy = clean.flip(3) + 0.1 * torch.randn(clean.shape)
    together = suite_scores(noisy, clean)
    alone = [suite_scores(noisy[i : i + 1], clean[i : i + 1]) for i in range(len(clean))]
    for name, score in together.items():
        torch.testing.assert_close(score, torch.cat([one[name] for one in alone]), rtol=0, atol=1e-5, msg=name)


def test_scores_carry_a_gradient_of_0_and_broken_pairs_none():
    clean = photographs(24, 24)
    noisy = clean.flip(3)
    noisy[1, 0, 0, 0] = torch.nan
    noisy.requires_grad_()
    scores = suite_scores(noisy, clean)
    for name in set(ORACLES) - {"pearson_unwrapped", "pearson_unwrapped_sobel"}:
        assert scores[name].isnan().tolist() == [False, True, False, False], name
        (gradient,) = torch.autograd.grad(scores[name][0], noisy, retain_graph=True)
        assert (gradient == 0).all(), name


@dataclass(frozen=True)
class Noting:
    """A finder that notes how often it is asked."""

    calls: tuple = ()

    def __call__(self, noisy, clean):
        CALLS.append(noisy.shape)
        return Sight(noisy, clean, torch.ones(len(noisy), dtype=torch.bool))


CALLS: list = []


def test_components_share_what_a_finder_finds():
    CALLS.clear()
    clean = photographs(24, 24)
    components = [
        Component(name, Oracle(Noting(), similarity), (luma,), (luma,))
        for name, similarity in (("a", SquaredPearson()), ("b", MutualInformation()), ("c", CorrelationRatio()))
    ]
    pair = Pair(clean, clean)
    for component in components:
        assert (pair.score(component) > 0.5).all()
    assert len(CALLS) == 1


def test_what_is_drawn_is_what_was_found():
    clean = photographs(24, 24)
    component = added_components("standard-v2", betas=SMALL)["oriented_gray"]
    ((noisy, beside),) = Pair(1 - clean.rot90(1, (2, 3)), clean).views(component)
    torch.testing.assert_close(noisy, beside, atol=1e-4, rtol=0)


def test_brightness_contrast_and_sign_are_fitted():
    clean = gray(22, 22)
    torch.testing.assert_close(Fit()(5 - 1e-3 * clean, clean).noisy, clean, atol=1e-3, rtol=0)


def test_the_suite_stands_behind_the_first_and_reads_what_is_turned():
    clean = photographs(64, 64)
    privacy = MultiAttackerPrivacy(suite="standard-v2", betas=SMALL)
    first = MultiAttackerPrivacy(suite="standard-v1", betas=SMALL)
    noisy = clean.rot90(1, (2, 3))
    privacy.update(noisy, clean)
    first.update(noisy, clean)
    values, before = privacy.compute(), first.compute()
    assert list(values) == [*before, *ADDED]
    for name, value in before.items():
        assert float(values[name]) == pytest.approx(float(value), abs=1e-6)
    for name in ("oriented_gray", "pearson_oriented", "pearson_registered", "pearson_oriented_sobel"):
        assert float(values[name]) > 0.99, name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ToneTable(levels=1), "levels"),
        (lambda: AssignedBlocks(1), "size"),
        (lambda: CorrelationRatio(levels=0), "levels"),
        (lambda: MutualInformation(levels=2.5), "levels"),
        (lambda: AssignedBlocks()(torch.rand(1, 1, 7, 9), torch.rand(1, 1, 7, 9)), "smaller blocks"),
        (lambda: AssignedBlocks()(torch.rand(1, 3, 9, 9), torch.rand(1, 3, 9, 9)), "take luma"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_command_line_knows_the_suite(tmp_path):
    pytest.importorskip("imagecodecs", reason="needs the cli extra")
    pandas = pytest.importorskip("pandas", reason="needs the cli extra")
    from attacker_metrics.commands import cli

    clean = photographs(48, 48)
    for side, pictures in (("originals", clean), ("sent", clean.rot90(1, (2, 3)))):
        (tmp_path / side).mkdir()
        for i, picture in enumerate(pictures.numpy()):
            np.save(tmp_path / side / f"{i}.npy", np.ascontiguousarray(picture))
    sides = ["--clean", str(tmp_path / "originals"), "--noisy", str(tmp_path / "sent")]
    settings = ["--betas", "1", "--suite", "standard-v2"]
    assert cli.main(["evaluate", *sides, "--output", str(tmp_path / "out"), *settings, "--null", "0"]) == 0
    scores = pandas.read_parquet(tmp_path / "out" / "scores.parquet")
    assert list(scores)[-len(ADDED) :] == ADDED
    assert (scores["pearson_oriented"] > 0.99).all()
    one = [str(tmp_path / side / "0.npy") for side in ("originals", "sent")]
    assert cli.main(["views", *one, "--output", str(tmp_path / "views.png"), *settings]) == 0


@pytest.mark.slow
def test_the_self_test_asks_the_suite_about_moved_pictures():
    from attacker_metrics.reading.strongest import evaluate_known_cases, is_called_leaking

    pictures = dict(zip("abcd", torch.tensor(photo_pair("noise", 176, 176)[1]).float(), strict=True))
    verdicts = {}
    for suite in ("standard-v1", "standard-v2"):
        found = evaluate_known_cases(pictures, ["a"], cases=["quarter turn"], learned=(), stride=20, suite=suite)
        verdicts[suite] = [is_called_leaking(one) for one in found.values()]
    assert verdicts == {"standard-v1": [], "standard-v2": [True]}
