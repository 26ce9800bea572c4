"""Devices: data sets played onto the bus, with seeded bad input."""
