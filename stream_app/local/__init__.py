"""The embedded AWS: a patched moto server (HTTP/1.1 and HTTP/2), local deployment, and pipe and function runners."""
