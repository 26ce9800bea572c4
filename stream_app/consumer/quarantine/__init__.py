"""Quarantine: finds and excludes records that end their process."""
