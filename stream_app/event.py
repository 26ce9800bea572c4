"""The former name of `stream_app.model.event`: event types that import it keep working. New ones import `api`."""

from stream_app.model.event import *  # noqa: F403
