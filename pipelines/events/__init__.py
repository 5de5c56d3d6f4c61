"""Where events come from, what they name, and where the messages of finished recordings go."""
