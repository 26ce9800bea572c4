"""Redrive: select failed records, plan, send each of them again once, and track the outcome."""
