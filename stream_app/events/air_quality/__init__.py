"""The sample event type: hourly air quality readings, with the U.S. Air Quality Index beside it."""

from stream_app.events.air_quality.event import EVENT

__all__ = ["EVENT"]
