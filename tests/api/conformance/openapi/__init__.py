"""A small reader of the specification's OpenAPI documents, and what it checks answers with."""
