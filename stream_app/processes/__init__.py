"""Processes of the operating system: disposable forks, limits, and their standard output."""
