"""Estimate of the monthly AWS cost from a load, the settings and a price table."""
