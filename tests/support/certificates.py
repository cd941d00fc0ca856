"""A certificate of this machine, by an authority that no system knows, as hospitals have them."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """The files of a server's `certificate` and `key`, and of the `authority` that signed it."""

    authority: Path
    certificate: Path
    key: Path


def private_certificate(folder: Path) -> Certificate:
    """A certificate for 127.0.0.1, written to a folder."""
    ours, theirs = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _builder("authority", "authority", ours).add_extension(x509.BasicConstraints(True, 0), True)
    loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    server = (
        _builder("server", "authority", theirs)
        .add_extension(x509.SubjectAlternativeName([loopback]), False)
        .add_extension(x509.BasicConstraints(False, None), True)
    )
    files = Certificate(folder / "authority.pem", folder / "server.pem", folder / "key.pem")
    for file, builder in ((files.authority, authority), (files.certificate, server)):
        file.write_bytes(builder.sign(ours, hashes.SHA256()).public_bytes(Encoding.PEM))
    files.key.write_bytes(theirs.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def _builder(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
