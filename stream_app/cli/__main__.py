"""Runs the command line: `python -m stream_app.cli`."""

from __future__ import annotations

from stream_app.cli.main import main

if __name__ == "__main__":
    main()
