"""The server of the embedded AWS: moto as a WSGI application, its process and its fault switches."""
