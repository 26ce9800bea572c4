"""Rewrites stored segment files and latest values."""
