"""The shipped event types: one module for each, with its Avro schema in `schemas/`."""
