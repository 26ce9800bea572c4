"""Event types: one module each, beside its Avro schema."""
