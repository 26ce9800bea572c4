"""The pipeline: pure stages over batches of records. `flow` has their order."""
