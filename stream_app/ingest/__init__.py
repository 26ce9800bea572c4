"""Simulated devices: data sets sent to the event bus and the stream, with seeded faults."""
