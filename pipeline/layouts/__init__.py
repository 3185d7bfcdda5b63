"""Layouts that people keep data in: read into a manifest (`init`), written back (`convert`)."""
