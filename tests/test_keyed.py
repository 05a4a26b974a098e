"""The keyed attacker: one fixed key for all pictures is learned from pairs and undone; without one nothing comes back."""

import io

import numpy as np
import pytest
import torch
from reference import photographs

from attacker_metrics import SquaredPearson
from attacker_metrics.reading.learned import KeyedAttacker, places, standard_learned
from attacker_metrics.reading.learned.blocks import Grid, likely_grids, matched_blocks
from attacker_metrics.reading.learned.places import FEATURES, matched

SIDE, FITTED = 16, 100
SECRET = torch.Generator().manual_seed(5)
ORDER = torch.randperm(3 * SIDE**2, generator=SECRET)
PAD = torch.rand(3, SIDE, SIDE, generator=SECRET)
BYTES = torch.randint(0, 256, (3, SIDE, SIDE), generator=SECRET)
TABLE = torch.randperm(256, generator=SECRET)


def crops(count=160, seed=0):
    """Crops of four photographs in 8 bits, ``(count, 3, SIDE, SIDE)``."""
    whole = torch.from_numpy(photographs(176, 176)).float()
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 176 - SIDE, (count, 2), generator=generator).tolist()
    cut = [whole[i % len(whole), :, y : y + SIDE, x : x + SIDE] for i, (y, x) in enumerate(corners)]
    return (torch.stack(cut) * 255).round() / 255


def shuffled(x):
    return x.flatten(1)[:, ORDER].view_as(x)


def pixels_shuffled(x):
    return x.flatten(2)[:, :, torch.randperm(SIDE**2, generator=torch.Generator().manual_seed(3))].view_as(x)


def xor_chain(values):
    sent = np.bitwise_xor.accumulate(values.flatten(1).numpy(), axis=1)
    return torch.from_numpy(sent).view_as(values)


def in_bytes(x):
    return (x * 255).round().long()


def blocks_turned(x):
    blocks = x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)  # (B, 3, blocks, 4, 4)
    order = torch.randperm(blocks.shape[2], generator=torch.Generator().manual_seed(1))
    blocks = blocks[:, :, order].clone()
    blocks[:, :, ::2] = 1 - blocks[:, :, ::2].rot90(1, (3, 4))
    side = SIDE // 4
    return blocks.unflatten(2, (side, side)).permute(0, 1, 2, 4, 3, 5).reshape(x.shape)


KEYS = {
    "as it is": lambda x: x,
    "turned": lambda x: x.rot90(1, (2, 3)),
    "mirrored": lambda x: x.flip(3),
    "transposed": lambda x: x.transpose(2, 3),
    "rolled": lambda x: x.roll((3, 5), (2, 3)),
    "channels and negative": lambda x: 1 - x[:, [2, 0, 1]],
    "shuffled": shuffled,
    "blocks shuffled, turned and negated": blocks_turned,
    "cover with a trace": lambda x: 0.98 * PAD + 0.02 * x,
    "gain and offset of the place": lambda x: PAD + (0.2 + PAD.flip(0)) * x,
    "pad modulo 1": lambda x: (x + PAD) % 1,
    "pad minus value modulo 1": lambda x: (PAD - x) % 1,
    "pad modulo 256": lambda x: ((in_bytes(x) + BYTES) % 256) / 255,
    "pad XORed": lambda x: (in_bytes(x) ^ BYTES) / 255,
    "shuffled, then pad modulo 1": lambda x: (shuffled(x) + PAD) % 1,
    "substitution table": lambda x: TABLE[in_bytes(x)] / 255,
    "shuffled pixels, then a substitution table": lambda x: TABLE[in_bytes(pixels_shuffled(x))] / 255,
    "a chain of exclusive ors": lambda x: xor_chain(in_bytes(x) ^ BYTES) / 255,
    "a chain of sums, pixel by pixel": lambda x: (
        (in_bytes(x).permute(0, 2, 3, 1).flatten(1).cumsum(1) % 256).view(-1, SIDE, SIDE, 3).permute(0, 3, 1, 2) / 255
    ),
    "differences of neighbours modulo 256, then a pad": lambda x: (
        ((in_bytes(x).flatten(1).diff(dim=1, prepend=torch.zeros(len(x), 1, dtype=torch.long))).view_as(x) + BYTES)
        % 256
        / 255
    ),
}


def fitted(hide, clean):
    attacker = KeyedAttacker()
    attacker.fit_update(hide(clean[:FITTED]), clean[:FITTED], ids=range(FITTED))
    attacker.fit_compute()
    return attacker


@pytest.mark.parametrize("name", KEYS)
def test_a_fixed_key_is_learned_and_undone(name):
    clean = crops()
    attacker = fitted(KEYS[name], clean)
    held_out = clean[FITTED:]
    restored = SquaredPearson()(attacker(KEYS[name](held_out)), held_out)
    assert restored.median() >= 0.95, (name, attacker.found, restored.median())


def test_a_table_of_every_place_is_learned_where_values_were_seen_and_filled_where_not():
    """Of 256 values of a place 100 pairs show a part; the neighbours tell the rest."""
    clean = crops(300)
    tables = torch.rand(3 * SIDE**2, 256, generator=torch.Generator().manual_seed(1)).argsort(dim=1)

    def hide(x):
        return tables[torch.arange(len(tables)), in_bytes(x).flatten(1)].view_as(x) / 255

    attacker = fitted(hide, clean)
    restored = attacker(hide(clean[FITTED:]))
    own, other = (SquaredPearson()(restored, truth) for truth in (clean[FITTED:], clean[FITTED:].roll(1, 0)))
    assert attacker.found == ("stayed", "table of place")
    assert "where unknown" in attacker.finish
    assert own.median() >= 0.75
    assert other.median() <= own.median() - 0.4


@pytest.mark.parametrize("blocks", ["turned", "rows"])
def test_noise_that_hides_where_pixels_went_does_not_hide_where_blocks_did(blocks):
    clean = crops(300)
    noise = torch.Generator().manual_seed(4)
    order = torch.randperm(SIDE, generator=torch.Generator().manual_seed(1))

    def hide(x):
        moved = blocks_turned(x) if blocks == "turned" else x[:, :, order]
        return moved + 0.3 * torch.randn(x.shape, generator=noise)

    attacker = fitted(hide, clean)
    restored = attacker(hide(clean[FITTED:]))
    own, other = (SquaredPearson()(restored, truth) for truth in (clean[FITTED:], clean[FITTED:].roll(1, 0)))
    assert "blocks" in attacker.found[0]
    assert own.median() >= 0.5
    assert other.median() <= own.median() - 0.4


def test_blocks_are_found_by_their_means_then_orientation_and_sign():
    clean = crops(60)
    numbers = torch.arange(3 * SIDE**2, dtype=torch.float32).view(1, 3, SIDE, SIDE)
    moved = blocks_turned(numbers)
    truth = torch.where(moved < 0, 1 - moved, moved).flatten().long()  # negated values are 1 - x
    found = matched_blocks(blocks_turned(clean), clean, Grid(4, 4))
    assert torch.equal(truth[found], torch.arange(3 * SIDE**2))
    assert likely_grids(blocks_turned(clean), clean, 1) == [Grid(4, 4)]


def test_the_lowest_bits_of_a_cover_give_the_picture_as_far_as_they_hold_it():
    clean, covers = crops(), crops(seed=1)

    def hide(x):
        return ((in_bytes(covers[: len(x)]) & 252) | (in_bytes(x) >> 6)) / 255

    found = SquaredPearson()(fitted(hide, clean)(hide(clean[FITTED:])), clean[FITTED:])
    most = SquaredPearson()((in_bytes(clean[FITTED:]) >> 6) / 3.0, clean[FITTED:])  # what two bits hold
    assert found.median() >= 0.9 * most.median()


def test_noise_and_a_key_for_each_picture_give_back_no_more_of_a_picture_than_of_another():
    clean = crops()
    draws = torch.Generator().manual_seed(2)

    def noise(x):
        return torch.rand(x.shape, generator=draws)

    def new_order(x):
        return torch.stack([image.flatten()[torch.randperm(image.numel(), generator=draws)].view_as(image) for image in x])

    for hide in (noise, new_order):
        attacker = fitted(hide, clean)
        restored = attacker(hide(clean[FITTED:]))
        own, other = (SquaredPearson()(restored, truth) for truth in (clean[FITTED:], clean[FITTED:].roll(1, 0)))
        assert abs(own.mean() - other.mean()) <= 0.05, (hide.__name__, own.mean(), other.mean())


def test_the_fit_does_not_depend_on_order_batches_or_processes_and_survives_saving():
    clean = crops()
    hide = KEYS["shuffled, then pad modulo 1"]
    whole = fitted(hide, clean)
    parts = [KeyedAttacker(), KeyedAttacker()]
    for i in reversed(range(FITTED)):
        parts[i % 2].fit_update(hide(clean[i : i + 1]), clean[i : i + 1], ids=[i])
    saved = io.BytesIO()
    torch.save(parts[1].state_dict(), saved)
    again = KeyedAttacker()
    again.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    parts[0].fit_merge(again.fit_state())
    parts[0].fit_compute()
    loaded = KeyedAttacker()
    loaded.load_state_dict(parts[0].state_dict())
    assert loaded.found == whole.found
    sent = hide(clean[FITTED:])
    assert torch.equal(loaded(sent), whole(sent))
    assert parts[0].state_dict()["_extra_state"]["unfinished"] is None


def test_the_attacker_changes_no_picture_and_keeps_its_dtype():
    clean = crops()
    attacker = fitted(KEYS["shuffled"], clean)
    for dtype in (torch.float16, torch.float32, torch.float64):
        sent = KEYS["shuffled"](clean[FITTED:]).to(dtype)
        before = sent.clone()
        assert attacker(sent).dtype == dtype
        assert torch.equal(sent, before)


def test_what_it_cannot_learn_from_is_told():
    clean = crops(20)
    attacker = KeyedAttacker()
    attacker.fit_update(clean[:4], clean[:4])
    with pytest.raises(ValueError, match=r"pictures of one size: \(16, 16\) before, got \(8, 16\)"):
        attacker.fit_update(clean[:2, :, :8], clean[:2, :, :8])
    with pytest.raises(ValueError, match=r"4 pairs are too few for KeyedAttacker\(\) to learn from: at least 8"):
        attacker.fit_compute()
    attacker.fit_update(clean, clean)
    attacker.fit_compute()
    with pytest.raises(ValueError, match=r"fitted on pictures of \(16, 16\) pixels, got \(8, 16\)"):
        attacker(clean[:1, :, :8])


def test_places_are_matched_as_by_numpy():
    generator = torch.Generator().manual_seed(0)
    noisy, clean = torch.randn(2, 30, 40, generator=generator)
    correlations = torch.corrcoef(torch.cat((clean, noisy), dim=1).T)[:40, 40:].abs()
    assert torch.equal(matched(noisy, clean, "values"), correlations.argmax(dim=1))


@pytest.mark.parametrize("features", FEATURES)
def test_among_many_places_the_same_are_found_as_by_comparing_all(features, monkeypatch):
    clean = crops(60).flatten(1)
    noisy = (clean[:, ORDER] + PAD.flatten()) % 1 if "circle" in features else clean[:, ORDER]
    monkeypatch.setattr(places, "_COMPARED_WITH_ALL", 10**9)
    by_all = matched(noisy, clean, features)
    monkeypatch.setattr(places, "_COMPARED_WITH_ALL", 100)
    by_few = matched(noisy, clean, features)
    if features != "highest bits":  # many places share their highest bits in 60 pairs
        assert (ORDER[by_few] == torch.arange(len(ORDER))).double().mean() >= 0.999
        assert (by_few == by_all).double().mean() >= 0.999
    else:
        assert torch.equal(clean[:, ORDER[by_few]] >= 128 / 255, clean >= 128 / 255)


def test_it_is_a_kind_beside_those_of_the_frozen_suite():
    assert [metric.name for metric in standard_learned(["keyed"])] == ["keyed_gray", "pearson_keyed"]
    assert "keyed_gray" not in {metric.name for metric in standard_learned()}
