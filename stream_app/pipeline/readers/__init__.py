"""Readers of the payload forms: JSON, Avro binary and MessagePack rows into columns."""
