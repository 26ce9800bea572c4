"""How large the heap of KCL's daemon must be for shards that catch up."""
