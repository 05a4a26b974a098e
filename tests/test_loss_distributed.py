"""The losses in real processes: two ranks under DDP and FSDP reach the weights of one process."""

import pytest
import torch

if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("this build of torch has no gloo", allow_module_level=True)
script = pytest.importorskip("loss_distributed_script", reason="needs torch's fully_shard", exc_type=ImportError)


@pytest.fixture(scope="module")
def outcome(three_processes):
    return torch.load(three_processes[0] / "loss_distributed_script" / "found.pt", weights_only=True)


@pytest.mark.parametrize("wrapper", ["ddp", "fsdp"])
def test_two_processes_train_as_one(outcome, wrapper):
    alone = script.CloakWithLoss()
    losses = script.train(alone, script.images())
    torch.testing.assert_close(outcome[wrapper]["losses"], losses, rtol=0, atol=1e-5)
    before, after = script.CloakWithLoss().state_dict(), alone.state_dict()
    assert list(outcome[wrapper]["weights"]) == list(after)
    for name, weight in outcome[wrapper]["weights"].items():
        torch.testing.assert_close(weight, after[name], rtol=0, atol=1e-5)
        assert not torch.equal(after[name], before[name])
