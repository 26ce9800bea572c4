"""The fixtures that users get, used by our own suite too."""

from stream_app.testing import aws, stream

__all__ = ["aws", "stream"]
