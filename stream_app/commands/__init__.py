"""The groups of commands, one module each; `cli` mounts them."""
