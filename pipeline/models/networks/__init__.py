"""Networks: their settings, and how each is built."""
