"""Planning: from what the data are and what the machine can do to every value that was left open, with its reason."""
