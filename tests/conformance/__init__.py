"""Results of a public suite of tests, as a table of which each change is a diff."""
