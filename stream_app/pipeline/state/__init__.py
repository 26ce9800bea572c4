"""State per device: key index, last values, windows, deduplication, and its form in a snapshot."""
