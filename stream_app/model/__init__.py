"""The vocabulary that every package shares: records, batches, failures, event types, segments."""
