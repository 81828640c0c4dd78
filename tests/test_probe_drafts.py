"""Probes whose searches begin in float32 and end in float64, as evaluations take them."""

from __future__ import annotations

import pytest
import torch

from engine.probes.ascent import nothing
from engine.probes.summary import adaptive_sharpness_each, profile_each

F64 = torch.float64
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(30, 4, dtype=F64, generator=GENERATOR)
TEACHER = torch.randn(35, dtype=F64, generator=GENERATOR)
OTHER = torch.randn(35, dtype=F64, generator=GENERATOR)
RADII = (0.001, 0.05)
HOW = {"restarts": 3, "ascent_steps": 20, "tick": nothing}


def logits(theta):
    return torch.sigmoid(X.to(theta) @ theta[:20].view(4, 5)) @ theta[20:].view(5, 3)


(BEST, SECOND), LABELS = logits(TEACHER).topk(2).values.T, logits(TEACHER).argmax(1)
CERTAIN = torch.cat([TEACHER[:20], 20 / float((BEST - SECOND).min()) * TEACHER[20:]])
POINTS = torch.stack([TEACHER, CERTAIN, OTHER])


def loss(theta):
    return torch.nn.functional.cross_entropy(logits(theta), LABELS)


def profiles(points, draft):
    return profile_each(loss, points, RADII, trace_samples=5, linf=True, draft=draft, **HOW)


def test_a_search_that_begins_in_float32_finds_what_one_in_float64_finds():
    points = POINTS[::2]
    dense = [float(torch.linalg.eigvalsh(torch.func.hessian(loss)(theta))[-1]) for theta in points]
    assert [found.top_eigenvalue for found in profiles(points, loss)] == pytest.approx(dense, rel=1e-8)
    for found, exact in zip(profiles(points, loss), profiles(points, None), strict=True):
        assert found.trace == pytest.approx(exact.trace, rel=1e-4)
        assert found.surrogate_gap == exact.surrogate_gap
        for name in ("sharpness", "max_grad_norm", "r1", "sharpness_linf", "max_grad_norm_linf"):
            assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=1e-4), name
        for radius in RADII:
            assert found.surrogate_gap[radius] <= found.sharpness[radius] <= found.r1[radius]
    rises = [adaptive_sharpness_each(loss, points, [0.5], draft=draft, **HOW) for draft in (loss, None)]
    for found, exact in zip(*rises, strict=True):
        assert found == pytest.approx(exact, rel=1e-4)


def test_where_float32_does_not_know_the_gradient_all_is_searched_in_float64():
    assert 0 < float(loss(CERTAIN)) < 1e-8  # in float32 it is rounding and no more
    found = profiles(POINTS, loss)
    assert found[1] == profiles(CERTAIN[None], None)[0]
    assert found[0] == profiles(TEACHER[None], loss)[0] and found[2] == profiles(POINTS[2:], loss)[0]
