/* Functions of ocsp_conn.c as they are before the step that adds https, see ../steps.tcl.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

int ocspConnWrite(ocspConn *c, const void *bytes, size_t len) {
    const char *what = "sending the request", *p = bytes;

    while (len > 0) {
        ssize_t n = send(c->fd, p, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return ocspFail(c->err, OCSP_FAIL_CLOSED, "the connection broke while %s: %s", what, strerror(errno));
        if (n < 0 && !ocspPoll(c, POLLOUT, what)) return 0;
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return 1;
}

ssize_t ocspConnRead(void *conn, void *buf, size_t size) {
    const char *what = "waiting for the answer";
    ocspConn *c = conn;

    for (;;) {
        ssize_t n;
        /* The deadline is checked here too: if the other end always has a byte ready, ocspPoll is never called. */
        if (ocspConnNowMs() >= c->deadline)
            return ocspFail(c->err, OCSP_FAIL_TIMEOUT, "no complete answer in time") - 1;
        n = recv(c->fd, buf, size, 0);
        if (n >= 0) return n;
        if (errno != EAGAIN && errno != EINTR)
            return ocspFail(c->err, OCSP_FAIL_CLOSED, "the connection broke while %s: %s", what, strerror(errno)) - 1;
        if (!ocspPoll(c, POLLIN, what)) return -1;
    }
}

void ocspConnClose(ocspConn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}
