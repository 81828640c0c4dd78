"""A meta-trained learned optimizer as a `torch.optim.Optimizer`, for any model of yours."""

from engine.torch_optim.loading import load_optimizer, load_rule
from engine.torch_optim.optimizer import LearnedOptimizer

__all__ = ["LearnedOptimizer", "load_optimizer", "load_rule"]
