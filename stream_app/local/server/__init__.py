"""The embedded AWS as a server: moto as a WSGI application, its process and its fault switches."""
