"""Calls to AWS: retries, conditional writes, objects, and the sizes that requests may have."""
