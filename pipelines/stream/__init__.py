"""Streams on this machine: micro-batches of Pub/Sub's messages, acknowledged after publishing."""
