"""A meta-trained learned optimizer as a `torch.optim.Optimizer`, for any model of yours."""

from engine.export.torch_optim.loading import load_optimizer
from engine.export.torch_optim.optimizer import LoadedOptimizer

__all__ = ["LoadedOptimizer", "load_optimizer"]
