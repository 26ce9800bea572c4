"""The state of `NearestValue`, its compiled loops and its form in a snapshot."""
