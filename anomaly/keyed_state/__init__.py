"""The state of many keys: arrays with one row per key, and their serialized form."""
