"""A meta-trained learned optimizer as a `torch.optim.Optimizer`, for any model of yours."""

from engine.export.torch_optim.loading import load_optimizer
from engine.export.torch_optim.optimizer import LearnedOptimizer

__all__ = ["LearnedOptimizer", "load_optimizer"]
