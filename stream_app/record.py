"""The former name of `stream_app.api`. User code that import it keep working."""

from stream_app.api import *  # noqa: F403
