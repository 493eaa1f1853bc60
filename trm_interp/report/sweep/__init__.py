"""Tables of jobs, each a command line, run on this machine or on a cluster."""
