"""Where passed rows go."""
