"""Training of separators: losses, networks, and what they learn from."""
