"""Rewriting of stored segment files and latest values."""
