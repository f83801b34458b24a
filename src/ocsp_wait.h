/* ocsp_wait.h - for a host that can block a client until the OCSP thread has served it, like the module: refreshes and
 * pushed responses with a callback. A patched server's DEBUG does not wait.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_WAIT_H
#define OCSP_WAIT_H

#include "ocsp.h"

/* The outcome: error is NULL, or a reason valid during the call. OCSP thread, or main at shutdown. */
typedef void ocspRefreshDone(void *arg, const char *error);

/* Like ocspRequestRefresh and ocspSet. 1: `done` (NULL: none) is called once at the end. 0: it cannot be done, `why` (at
 * least OCSP_SENTENCE_MAX bytes) has the reason, and `done` is never called. Main; does not block. */
int ocspRequestRefreshThen(ocspRefreshDone *done, void *arg, char *why, size_t why_size);
int ocspSetThen(const char *base64, size_t len, ocspRefreshDone *done, void *arg, char *why, size_t why_size);

/* To be put into ocspHost.answered. */
void ocspWaitAnswered(ocspAnswerKind kind, unsigned number, const char *error);

#endif
