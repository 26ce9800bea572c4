"""The KCL consumer: protocol, segments, state, order of effects."""
