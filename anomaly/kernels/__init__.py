"""Compiled loops of the detectors."""
