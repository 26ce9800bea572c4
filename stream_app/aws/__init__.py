"""Calls to AWS: clients, retries, conditional writes, S3 objects, and the size limits of requests."""
