"""Kinesis as AWS documents it, in place of moto's model."""
