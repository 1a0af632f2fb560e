"""The routes of the JSON API, one file a subject."""
