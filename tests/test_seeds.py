"""Seeds are the same everywhere and for ever, and differ wherever anything differs."""

from __future__ import annotations

from engine.base.seeds import derive


def test_seeds_never_change():
    assert derive(0) == 0x5FECEB66FFC86F38 >> 1  # sha256("0")
    assert derive(3, "unroll", 1, "theta") == 6527687265457050348


def test_seeds_differ_by_seed_and_purpose_and_fit_a_generator():
    import torch

    seeds = [derive(seed, "unroll", index, what) for seed in range(20) for index in range(20) for what in "ab"]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    for seed in (max(seeds), derive(2**53)):
        torch.Generator().manual_seed(seed)
