"""Commands that run no job, and what is shown of those that do."""
