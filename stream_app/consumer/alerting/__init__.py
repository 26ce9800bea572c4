"""Alerts about anomalies: their form, the outbox, and the storage of unsent alerts."""
