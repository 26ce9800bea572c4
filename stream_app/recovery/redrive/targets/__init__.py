"""Targets of a redrive: EventBridge bus, Kinesis stream, HTTP endpoint."""
