"""`stream-app run`: a complete run on this machine, from simulated devices to an audited summary."""
