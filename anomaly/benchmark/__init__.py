"""Benchmarks of detectors on labelled series."""
