"""Model packages out of separators and of modules of one's own; nothing that separates needs it."""
