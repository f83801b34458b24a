# staple_client.py - a client with Python's redis package, for the table of clients.
#
# usage: staple_client.py PORT CA-FILE stapled|plain|require|soft CERT KEY
# Exit status 0: the server was accepted, 3: it was rejected, with the reason on standard output.
#
# "stapled" sets ssl_validate_ocsp_stapled=True, which requires a client certificate. "require" and "soft" use
# utils/clients/python with that policy.
#
# SPDX-License-Identifier: BSD-3-Clause

import pathlib
import sys

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

port, ca, how, cert, key = sys.argv[1:]
options = {"retry": Retry(NoBackoff(), 0)}  # one connection, without retries
connection = redis.SSLConnection
if how == "stapled":
    options.update(ssl_validate_ocsp_stapled=True, ssl_certfile=cert, ssl_keyfile=key)
elif how != "plain":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "utils" / "clients" / "python"))
    sys.dont_write_bytecode = True
    from staple import stapled

    connection = stapled(redis.SSLConnection, policy=how)
pool = redis.ConnectionPool(connection_class=connection, host="127.0.0.1", port=int(port), ssl_ca_certs=ca, **options)
try:
    pool.make_connection().connect()
except redis.exceptions.ResponseError:
    pass  # the server answered
except redis.exceptions.ConnectionError as e:
    print(e)
    sys.exit(3)
