"""Where failures are sent: the bus, the stream, an HTTP endpoint."""
