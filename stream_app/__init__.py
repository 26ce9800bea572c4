"""A Kinesis stream-processing application: every accepted record is accounted for exactly once."""

__version__ = "0.1.0"
