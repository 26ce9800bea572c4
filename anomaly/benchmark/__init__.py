"""Evaluation of detectors on labelled series."""
