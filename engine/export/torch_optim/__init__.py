"""A meta-trained learned optimizer as a `torch.optim.Optimizer`, for any model of yours."""

from engine.export.torch_optim.optimizer import LoadedOptimizer, load_optimizer

__all__ = ["LoadedOptimizer", "load_optimizer"]
