"""The `stream-app` command: one module for each group of commands, and what they print in `views`."""
