"""Files and volumes for browser pages: what the viewer and the service share."""
