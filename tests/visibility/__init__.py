"""Who may see what: readers, their histories in a room, its visibility, and every way to look.

Matrix v1.19, Client-Server API, "Room History Visibility"; Server-Server API, "Retrieving events"
(T104 to T108).  Rooms are played on a real server in this process, each with some sequence of
visibilities and all readers in it; then everything is asked that can show anything of a room, and
compared with an oracle that knows the specification's text and nothing of the server.

    python -m tests.visibility
"""
