"""What a job file says: its sections and keys, and the places that it names."""
