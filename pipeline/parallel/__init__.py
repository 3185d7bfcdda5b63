"""Work per case: in this process, in a pool of processes, on a Ray cluster, or in threads."""
