"""How the source is kept readable: sizes, rooms and words, counted."""
