"""Hydration: dead letters of every supported format become failures with their payloads in the failure store."""
