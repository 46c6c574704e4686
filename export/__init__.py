"""Offline: published checkpoints to bundles. The only package that may import torch."""
