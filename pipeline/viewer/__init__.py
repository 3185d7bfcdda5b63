"""The viewer of a run, in the browser."""
