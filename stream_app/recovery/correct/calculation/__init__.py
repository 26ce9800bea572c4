"""Recalculates a stored row from its original payload."""
