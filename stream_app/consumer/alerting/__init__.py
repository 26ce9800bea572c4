"""Alerts about anomalies, from the row to the event bus."""
