# staple.py - connections of redis-py and valkey-py that refuse servers without a good OCSP staple.
#
#   pool = redis.ConnectionPool(connection_class=stapled(redis.SSLConnection), host=..., ssl_ca_certs="ca.crt")
#   client = redis.Redis(connection_pool=pool)
#
# Requires pyOpenSSL, cryptography (40 or later) and Python 3.10. Python's ssl module can neither request nor read a
# staple. So the connection is made by the ssl module, with all options of the client, and a second handshake with the
# same address, by pyOpenSSL, gets the staple. That handshake is not trusted: the staple must be for the certificate of
# the first one, and its signature is verified with the issuer in the chain that ssl verified. No session is resumed.
#
# SPDX-License-Identifier: BSD-3-Clause

import datetime
import socket
import struct

from cryptography import exceptions, x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ocsp, oid
from OpenSSL import SSL

SKEW = datetime.timedelta(minutes=5)


def stapled(base, policy="require", max_age=900):
    """Returns a subclass of `base`, the SSLConnection of redis or valkey. With the policy "soft" a missing staple is
    accepted, unless the certificate is must-staple. A response without nextUpdate is accepted for max_age seconds."""

    class Stapled(base):
        def _connect(self):
            sock = super()._connect()
            try:
                chain = getattr(sock, "get_verified_chain", None) or sock._sslobj.get_verified_chain  # Python < 3.13
                ders = [c if isinstance(c, bytes) else c.public_bytes(2) for c in chain()]
                leaf, issuer = (x509.load_der_x509_certificate(der) for der in ders[:2])
                staple = fetch(sock.getpeername()[:2], self.host, self.socket_connect_timeout or 10)
                if staple:
                    verify(staple, leaf, issuer, datetime.timedelta(seconds=max_age))
                elif policy != "soft" or any(e.oid == oid.ExtensionOID.TLS_FEATURE for e in leaf.extensions):
                    raise ValueError("the server sent none")
            except Exception as error:  # whatever a hostile staple causes
                sock.close()
                raise ConnectionError(f"OCSP staple of {self.host}: {error or 'wrong signature'}") from error
            return sock

    return Stapled


def fetch(address, name, seconds):
    """Returns the staple of the server at `address`, or b"". Nothing that the server sends is verified here."""
    staples = [b""]
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_ocsp_client_callback(lambda connection, staple, data: staples.append(staple) or True)
    with socket.create_connection(address, seconds) as sock:
        sock.settimeout(None)  # pyOpenSSL needs a blocking socket; the kernel keeps the time
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds) + 1, 0))
        connection = SSL.Connection(context, sock)
        if name != address[0]:
            connection.set_tlsext_host_name(name.encode())
        connection.request_ocsp()
        connection.set_connect_state()
        try:
            connection.do_handshake()
        except SSL.Error:  # in TLS 1.2, a server that demands a client certificate refuses after its staple
            if len(staples) == 1:
                raise
    return staples[-1]


def verify(staple, leaf, issuer, max_age=datetime.timedelta(minutes=15)):
    """Raises ValueError or InvalidSignature unless `staple` is a valid, good response for `leaf` of `issuer`."""
    now = datetime.datetime.now(datetime.timezone.utc)
    response = ocsp.load_der_ocsp_response(staple)
    signers = [issuer]
    for cert in response.certificates:  # raises ValueError if the response is an error of the responder
        uses = [e.value for e in cert.extensions if e.oid == oid.ExtensionOID.EXTENDED_KEY_USAGE]
        if cert != issuer and any(oid.ExtendedKeyUsageOID.OCSP_SIGNING in use for use in uses):
            cert.verify_directly_issued_by(issuer)
            if utc(cert, "not_valid_before") - SKEW <= now <= utc(cert, "not_valid_after") + SKEW:
                signers.append(cert)
    if not any(signed(response, signer.public_key()) for signer in signers):
        raise ValueError("not signed by the issuer or its authorized responder")
    current = []
    for r in response.responses:
        ours = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, r.hash_algorithm).build()
        if all(getattr(r, f) == getattr(ours, f) for f in ("serial_number", "issuer_name_hash", "issuer_key_hash")):
            end = utc(r, "next_update") or utc(r, "this_update") + max_age
            if utc(r, "this_update") - SKEW <= now <= end + SKEW:
                current.append(r.certificate_status)
    if not current or any(status != ocsp.OCSPCertStatus.GOOD for status in current):
        raise ValueError("the certificate is revoked or unknown" if current else "no current status of the certificate")


def signed(response, key):
    digest = response.signature_hash_algorithm
    how = [padding.PKCS1v15(), digest] if isinstance(key, rsa.RSAPublicKey) else [ec.ECDSA(digest)] if digest else []
    try:
        key.verify(response.signature, response.tbs_response_bytes, *how)
    except (exceptions.InvalidSignature, TypeError):  # TypeError: signed with a key of another type
        return False
    return True


def utc(thing, field):
    """Returns a time with its time zone; before version 42 cryptography's times have none, but are UTC."""
    time = getattr(thing, f"{field}_utc") if hasattr(thing, f"{field}_utc") else getattr(thing, field)
    return time.replace(tzinfo=datetime.timezone.utc) if time else None
