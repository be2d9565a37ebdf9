"""What was trained in plain PyTorch, in one file: saved, loaded, described. Needs torch and safetensors alone."""

from .bundle import adapt_from, load, read_about, save

__all__ = ['adapt_from', 'load', 'read_about', 'save']
