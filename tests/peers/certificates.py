"""A certificate authority for tests, kept in a folder.  Needs `trustme`."""

from __future__ import annotations

from pathlib import Path


class TestCA:
    """A certificate authority kept as ``ca.pem`` and ``ca.key`` in a folder.

    The pair is made on first use and read back afterwards, so that several
    peers, and the server under test, can trust the same authority.
    """

    __test__ = False  # not a pytest test class, whatever its name

    def __init__(self, folder: Path | str) -> None:
        import trustme

        self.folder = Path(folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cert_path = self.folder / "ca.pem"
        self._key_path = self.folder / "ca.key"
        if self._key_path.exists():
            self._ca = trustme.CA.from_pem(self.cert_path.read_bytes(), self._key_path.read_bytes())
        else:
            self._ca = trustme.CA()
            self._ca.cert_pem.write_to_path(str(self.cert_path))
            self._ca.private_key_pem.write_to_path(str(self._key_path))
            self._key_path.chmod(0o600)

    def issue(self, *identities: str, folder: Path | str) -> tuple[Path, Path]:
        """Issue one certificate for DNS names and IP addresses.

        Returns the paths of the chain (``tls.pem``) and the key (``tls.key``),
        both written into ``folder``.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        leaf = self._ca.issue_cert(*dict.fromkeys(identities))
        chain, key = target / "tls.pem", target / "tls.key"
        leaf.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
        chain.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        return chain, key
