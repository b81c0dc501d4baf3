"""The public API of Dassl that CLIP plugins use, implemented independently for current PyTorch."""

__version__ = "0.1.0"
