"""Jobs that other services run: Dataflow, and runners behind a Beam job server."""
