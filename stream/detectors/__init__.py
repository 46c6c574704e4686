"""Detectors: a frame in, regions out."""
