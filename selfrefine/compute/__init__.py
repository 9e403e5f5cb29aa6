"""Numerics that sampling and training share: forward passes, shared prefixes, LoRA, products."""
