"""Quarantine: records that end their process are found and excluded."""
