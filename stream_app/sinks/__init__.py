"""Sinks store the accepted rows of segments; `laws` is their contract as tests."""
