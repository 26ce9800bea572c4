"""Recalculation of a stored row from its original payload."""
