"""Plans: which failures to send again, where to, and the expected result."""
