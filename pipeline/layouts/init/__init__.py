"""`segpipe init`: from a folder of scans to a manifest and a configuration."""
