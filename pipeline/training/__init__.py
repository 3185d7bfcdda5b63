"""Training: the loop, what it learns with, where its batches come from, how it validates, records and resumes."""
