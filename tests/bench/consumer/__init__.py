"""Benchmark of the complete consumer: `python -m tests.bench.consumer --help`."""
