"""Pages for people: what a browser is shown."""
