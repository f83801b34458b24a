# staple_client.py - Python's redis package, for the table of clients: staple_client.py PORT CA-FILE stapled|plain CERT
# KEY. Exit status 0: it accepted the server, 3: it refused, with the reason on standard output.
#
# "stapled" is its ssl_validate_ocsp_stapled=True, for which it wants a client certificate.
#
# SPDX-License-Identifier: BSD-3-Clause

import sys

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

port, ca, how, cert, key = sys.argv[1:]
options = {"retry": Retry(NoBackoff(), 0)}  # one connection, one verdict
if how == "stapled":
    options.update(ssl_validate_ocsp_stapled=True, ssl_certfile=cert, ssl_keyfile=key)
client = redis.Redis(host="127.0.0.1", port=int(port), ssl=True, ssl_ca_certs=ca, **options)
try:
    client.connection_pool.make_connection().connect()
except redis.exceptions.ConnectionError as e:
    print(e)
    sys.exit(3)
