"""Corrections: one request, one recalculation, one row overwritten in its segment."""
