"""The public API as a user's own code uses it, checked by two type checkers in their strict modes."""
