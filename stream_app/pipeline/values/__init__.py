"""Avro types: compiled schemas, and single values read and written by type."""
