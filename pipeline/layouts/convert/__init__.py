"""`segpipe convert`: a data set written in another layout."""
