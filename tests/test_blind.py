"""Blind attackers: blocks are put together by their borders, and the components that the attackers make."""

import pytest
import torch
from reference import photographs

from attacker_metrics import AttackerMetric, SquaredPearson
from attacker_metrics.attackers.jigsaw import Assemble, block_side
from attacker_metrics.obfuscations import obfuscation
from attacker_metrics.scoring.suites import added_components

CLEAN = torch.from_numpy(photographs(128, 96)).float()


@pytest.mark.parametrize("side", [16, 32])
def test_shuffled_blocks_of_photographs_come_together_though_every_picture_has_another_key(side):
    sent = obfuscation("block-shuffle-per-image")(CLEAN, seed=3, strength=side)
    assert [block_side(image, 1024) for image in sent] == [side] * len(sent)
    assembled = Assemble()(sent)
    assert torch.equal(assembled.flatten(1).sort(dim=1).values, sent.flatten(1).sort(dim=1).values)  # only moved
    restored = SquaredPearson()(assembled, CLEAN)
    assert (SquaredPearson()(sent, CLEAN) < 0.3).all()
    assert restored.median() >= 0.95


def test_blocks_of_an_unusual_side_in_grey_and_in_double():
    grey = CLEAN[:, :1, :120, :96].double()
    blocks = grey.reshape(4, 1, 10, 12, 8, 12).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    sent = blocks[:, order].view(4, 10, 8, 1, 12, 12).permute(0, 3, 1, 4, 2, 5).reshape(grey.shape)
    assert SquaredPearson()(Assemble()(sent), grey).median() >= 0.9


def test_pictures_that_are_whole_noisy_constant_or_too_small_stay():
    noise = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for still in (CLEAN, noise, torch.full((1, 3, 32, 32), 0.5), CLEAN[..., :7, :5]):
        assert torch.equal(Assemble()(still), still)


def test_pictures_of_too_many_blocks_stay_and_settings_are_checked():
    sent = obfuscation("block-shuffle-per-image")(CLEAN, seed=3, strength=16)
    assert torch.equal(Assemble(most_blocks=8)(sent), sent)
    with pytest.raises(ValueError, match="most_blocks must be at least 4 and starts at least 1, got 2 and 3"):
        Assemble(most_blocks=2)


def test_they_are_in_the_suite():
    suite = added_components("standard-v2", betas=(0.5, 0.5))
    blind = {name: row for name, row in suite.items() if row.attacker in ("denoise", "assemble")}
    shuffled = obfuscation("block-shuffle-per-image")(CLEAN, seed=3, strength=32)
    noisy = obfuscation("gaussian-noise")(CLEAN, seed=3, strength=0.3)
    for sent, better in ((shuffled, "assemble"), (noisy, "denoise")):
        scores = {}
        for name, component in blind.items():
            metric = AttackerMetric(component)
            metric.update(sent, CLEAN)
            scores[name] = metric.compute()
        worse = ({"assemble", "denoise"} - {better}).pop()
        assert scores[f"pearson_{better}"] > scores[f"pearson_{worse}"] + 0.2
        assert scores[f"{better}_gray"] > scores[f"{worse}_gray"]
