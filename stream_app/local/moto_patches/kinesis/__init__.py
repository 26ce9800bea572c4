"""Kinesis patches: reading, writing, resharding and listing as AWS documents them."""
