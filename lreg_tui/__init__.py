"""The command line and the console of lreg. Nothing here imports torch."""

__version__ = "0.1.0"
