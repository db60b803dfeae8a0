"""A real Synapse (PyPI: matrix-synapse 1.163) on loopback, as a peer and as an oracle.

With SQLite, TLS certificates of a test authority, raised limits and fast retries (`settings`).  The
first installation takes half a minute, a start 1 to 2 s, a stop under 0.1 s; a peer needs about
120 MiB of memory.  Federation needs `trustme`.

    ensure_venv(".peers/synapse-venv")               # made once, kept between runs
    with SynapsePeer(folder, ".peers/synapse-venv", ca=TestCA(folder / "ca")) as peer:
        alice = peer.register("alice")               # .user_id .device_id .access_token .password
        peer.request("POST", "/_matrix/client/v3/createRoom", {}, token=alice.access_token)

`federating_pair` gives two that federate.  `restart` keeps data and ports; `pause` and `resume`
freeze and thaw the process, `stop` and `start` take it away and bring it back.  Call
`wait_background_updates` before measuring anything.  From Trio, call the blocking methods in a
thread.

Without `server_name` a peer is called `ADDRESS:FEDERATION_PORT`, an IP literal that needs neither
DNS nor /etc/hosts and that others reach without `.well-known` or SRV look-up.  For a name, put
`127.0.0.2 a.test` into /etc/hosts and pass `server_name="a.test:8448", federation_port=8448`.

Synapse gets a pipe as standard input and ends when the process with the other end dies, so a killed
test run leaves no server behind.  Parallel workers may share one environment and one authority:
both are locked.
"""
