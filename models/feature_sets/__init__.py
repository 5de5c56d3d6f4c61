"""Feature sets: features of recordings on disk, in files and in shards."""
