"""Whether all is there that a job names, and may be used: `beamsplitter verify`."""
