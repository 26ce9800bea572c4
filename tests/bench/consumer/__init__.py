"""The benchmark of the whole consumer: `python -m tests.bench.consumer --help`."""
