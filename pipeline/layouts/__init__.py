"""Data layouts: read into a manifest (`init`), written back (`convert`)."""
