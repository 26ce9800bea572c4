"""Audit of a stream: compares the accepted records with what the bucket stores."""
