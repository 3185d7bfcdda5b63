"""One file per stage; stages meet only through the files they write."""
