"""A language model improves itself, and an improvement is kept only when it is measured."""

__version__ = "0.1.0"
