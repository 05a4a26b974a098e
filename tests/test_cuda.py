"""On a GPU nothing waits for the device, and a step can be captured in a CUDA graph."""

import pytest
import torch
from conftest import pictures, spoil, warns_once

from attacker_metrics import MultiAttackerPrivacy, multi_attacker_privacy_loss, multi_attacker_scores

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

BETAS = (0.5, 0.5)


def step(noisy, clean):
    scores = multi_attacker_privacy_loss(noisy, clean, betas=BETAS)
    return torch.autograd.grad(scores["ms_ssim"] + scores["pearson"], noisy)[0]


@pytest.fixture
def no_waiting():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def images():
    noisy, clean = pictures(4, 44, 46, device="cuda")
    return noisy.requires_grad_(), clean


def test_loss_scores_update_and_forward_do_not_wait_for_the_device(images, no_waiting):
    privacy = MultiAttackerPrivacy(betas=BETAS)
    privacy.to("cuda")
    step(*images)
    multi_attacker_scores(*images, betas=BETAS)
    privacy.update(*images)
    privacy(*images)["ms_ssim"].backward()


def test_the_warning_comes_with_a_later_call(images, no_waiting):
    step(spoil(images[0].detach(), 1).requires_grad_(), images[1])
    torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    with warns_once("In an earlier call 1 of 4 pairs"):
        step(*images)
    step(*images)  # once


def test_a_step_can_be_captured_in_a_graph_and_replayed_on_other_images(images):
    noisy, clean = images
    warm_up = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        step(noisy, clean)
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(noisy, clean)
    others = pictures(4, 44, 46, seed=1, device="cuda")
    with torch.no_grad():
        noisy.copy_(others[0])
        clean.copy_(others[1])
    graph.replay()
    torch.testing.assert_close(captured, step(noisy, clean), rtol=1e-5, atol=1e-9)
