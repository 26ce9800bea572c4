"""Queries the failure store: which failures there are, and what caused them."""
