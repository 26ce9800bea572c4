"""Direct reading of a stream: shards, pages, ranges of records, and retention."""
