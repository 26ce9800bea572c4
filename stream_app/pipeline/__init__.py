"""Pure stages over batches: decode, conform, verify, calculate, score."""
