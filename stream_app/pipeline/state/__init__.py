"""State by device: key index, previous values, windows, deduplication, and its snapshot format."""
