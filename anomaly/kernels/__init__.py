"""The compiled loops of the detectors."""
