"""Members of the registries, for tests that run over them."""

from __future__ import annotations

from engine.optimizers.learned.base import LEARNED_OPTIMIZERS

KINDS = tuple(name for name in LEARNED_OPTIMIZERS.names() if not LEARNED_OPTIMIZERS[name].uses_task)
"""The learned optimizers that know parameters and gradients alone, and so train anything."""
GRADIENT_KINDS = tuple(name for name in KINDS if not LEARNED_OPTIMIZERS[name].differentiates_theta)
"""Those of them to which theta is a constant; the others know the loss as well, and are in test_unroll and
test_few_shot."""
