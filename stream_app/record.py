"""The former name of `stream_app.model.record`: event types that import it keep working. New ones import `api`."""

from stream_app.model.record import *  # noqa: F403
