"""What commands print to a terminal."""
