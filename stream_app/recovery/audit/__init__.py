"""The account of a stream: what it accepted, what the bucket has, and whether they are the same."""
