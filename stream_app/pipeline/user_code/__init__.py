"""Calls to user functions: checks at start, a dry run, and isolation of the rows that raise."""
