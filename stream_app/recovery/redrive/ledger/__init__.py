"""Ledger of redrive attempts: conditional claims ensure that no two appliers send the same record."""
