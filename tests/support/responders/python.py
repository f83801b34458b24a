#!/usr/bin/env python3
"""OCSP responder for tests/unit/ocsp-interop.tcl: python3-cryptography behind http.server.

usage: python3 python.py DIR PORT (README.md in this folder describes both)

thisUpdate is rounded down to the hour, as CFSSL and CAs that are built on it do; producedAt is exact.

SPDX-License-Identifier: BSD-3-Clause
"""

import datetime
import glob
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

DIR = sys.argv[1]
UTC = datetime.timezone.utc


def read(name):
    with open(os.path.join(DIR, name), "rb") as file:
        return file.read()


def certificate(name):
    return x509.load_pem_x509_certificate(read(name))


def served_certificate(serial):
    """The certificate with this serial number among those in DIR, or None."""
    for path in glob.glob(os.path.join(DIR, "*.crt")):
        cert = certificate(os.path.basename(path))
        if cert.serial_number == serial:
            return cert
    return None


def status_of(serial):
    """(OCSPCertStatus, revocation time, reason) by index.txt, or None for a serial number that is not in it."""
    for line in read("index.txt").decode().splitlines():
        flag, _, revocation, number = line.split("\t")[:4]
        if int(number, 16) != serial:
            continue
        if flag != "R":
            return ocsp.OCSPCertStatus.GOOD, None, None
        when, *reason = revocation.split(",")
        time = datetime.datetime.strptime(when, "%y%m%d%H%M%SZ").replace(tzinfo=UTC)
        hold = bool(reason) and reason[0] == "holdInstruction"
        return ocsp.OCSPCertStatus.REVOKED, time, x509.ReasonFlags.certificate_hold if hold else None
    return None


def answer(der):
    request = ocsp.load_der_ocsp_request(der)
    cert = served_certificate(request.serial_number)
    status = status_of(request.serial_number)
    if cert is None or status is None:
        return ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.UNAUTHORIZED)
    now = datetime.datetime.now(UTC)
    issuer = certificate("ca.crt")
    authorized = os.path.exists(os.path.join(DIR, "responder.crt"))
    signer = certificate("responder.crt") if authorized else issuer
    key = serialization.load_pem_private_key(read("responder.key" if authorized else "ca.key"), None)
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=cert,
        issuer=issuer,
        algorithm=request.hash_algorithm,
        cert_status=status[0],
        this_update=now.replace(minute=0, second=0, microsecond=0),
        next_update=now.replace(microsecond=0) + datetime.timedelta(hours=4),
        revocation_time=status[1],
        revocation_reason=status[2],
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, signer)
    if authorized:
        builder = builder.certificates([signer])
    return builder.sign(key, hashes.SHA256())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        der = self.rfile.read(int(self.headers["Content-Length"]))
        body = answer(der).public_bytes(serialization.Encoding.DER)
        self.send_response(200)
        self.send_header("Content-Type", "application/ocsp-response")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def end_with_input():
    sys.stdin.read()
    os._exit(0)


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
threading.Thread(target=end_with_input, daemon=True).start()
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
