"""The former name of `stream_app.api`. Event types that import it keep working."""

from stream_app.api import *  # noqa: F403
