"""What runs: job files, event sources, the graph, launching, the command line."""
