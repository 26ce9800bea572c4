"""`stream-app run`: one run on this machine, from devices to a summary that balances."""
