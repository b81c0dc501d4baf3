"""Experiments on CoFT that know the truth, or a part of it. No method."""
