"""The former home of event types and their loading, for event modules that import it. New ones import `api`."""

from stream_app.event_loading import discover as discover
from stream_app.event_loading import schema_files as schema_files
from stream_app.model.event import *  # noqa: F403
