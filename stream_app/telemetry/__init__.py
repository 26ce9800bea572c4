"""Renderers of one Summary value per batch."""
