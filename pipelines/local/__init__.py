"""Batches on this machine: a launcher, and engines that it starts, watches and starts again."""
