"""Corrections: each request recalculates one row and overwrites it in its segment."""
