"""The client API of a real server, held against the official descriptions and the requirements."""
