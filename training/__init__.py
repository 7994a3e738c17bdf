"""Network, data, losses, loop and evaluation: the only package that imports torch."""
