"""Benchmark of the heap size that KCL's daemon needs when shards catch up."""
