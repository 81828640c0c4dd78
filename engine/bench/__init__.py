"""Bench: how fast this machine meta-trains and evaluates, against plain eager PyTorch in the same run."""
