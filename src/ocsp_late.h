/* ocsp_late.h - for a host that cannot hand over the server's contexts itself, like the module: contexts that show by a
 * handshake that they serve, contexts of other code in the process, and links that are asked about by OpenSSL's info
 * callback. A patched server needs none of this: tls.c calls ocsp.h where it makes a context or a link.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_LATE_H
#define OCSP_LATE_H

#include "ocsp.h"

/* Who made an SSL_CTX. Modules with TLS listeners make contexts too, and those must never replace the server's. */
typedef enum ocspOwner {
    OCSP_CONTEXT_OF_SERVER, /* adopted once it was attached or has served a handshake */
    OCSP_CONTEXT_UNSURE,    /* the same, if `serves` of ocspLateInit agrees */
    OCSP_CONTEXT_FOREIGN    /* other code's: never adopted */
} ocspOwner;

/* Call it once after ocspInit, instead of nothing. `serves` says whether an OCSP_CONTEXT_UNSURE context, which served a
 * handshake, serves the server's own certificate (1: yes; 0: no, and never will; -1: not known yet, ask again) and is
 * called on main, in ocspLateCron; NULL means yes. Main. 0: OpenSSL has no room for the marks of contexts. */
int ocspLateInit(int (*serves)(SSL_CTX *ctx));

/* Makes a context of any owner answer status requests, see ocspInstallCallback. A foreign context is stapled for if it
 * serves a tracked certificate, but its handshakes never make the engine adopt it. The thread that fills `ctx`. */
void ocspInstallCallbackAs(SSL_CTX *ctx, ocspOwner owner);

/* Makes links opened with `ctx` request a staple while verify_peers is on; needs the callback as well. Contexts without a
 * certificate are left alone. The thread that fills `ctx`. RFC 6066 section 8. */
void ocspInstallPeerCheck(SSL_CTX *ctx);

/* Reports in the log and in INFO that verify_peers is on and links are not checked; `why` is half a sentence. Main. */
void ocspPeerCheckUnavailable(const char *why);

/* ocspAttachContext for a context with a callback of ocspInstallCallbackAs; retried when out of memory. Warns if links
 * opened with the context are not checked. Main; does not block. */
void ocspLateAttach(SSL_CTX *ctx);

/* Prefetches for a certificate about to be served: certs[0], with the others as its chain and `store` as trust anchors.
 * With stapling on, the next ocspCron loads its cached response and starts the thread that fetches, so that the responder
 * is asked before the first client can connect. Attaching that certificate then fetches nothing again. Takes references;
 * NULL cancels; ignored after the first attach and when out of memory. Main. */
void ocspPrefetchContext(STACK_OF(X509) *certs, X509_STORE *store);

/* Adopts the context that a handshake showed, then calls ocspCron. To be called in its place. Main. */
void ocspLateCron(void);

/* Forgets the context that waits to be adopted; before ocspShutdown. Main; no handshake may run. */
void ocspLateShutdown(void);

#endif
