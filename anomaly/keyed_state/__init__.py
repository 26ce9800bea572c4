"""The state of many keys: arrays with a row for each key, and their form in a snapshot."""
