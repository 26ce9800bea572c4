"""Sample event type: hourly air quality readings, with the calculation of the U.S. Air Quality Index."""

from stream_app.events.air_quality.event import EVENT

__all__ = ["EVENT"]
