"""Reading a stream beside its consumer: shards, pages, runs, and what its retention still leaves."""
