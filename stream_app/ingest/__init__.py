"""Devices to bus: envelope, data sets, producer."""
