# steps.tcl - the steps of `valkey-patch diff --series`: what appears in which, and what of a file is left out before.
# series.tcl explains the words. To add a file, a directive or an insertion to the patch, name it here, too.
#
# SPDX-License-Identifier: BSD-3-Clause

# ---- 1 ---------------------------------------------------------------------------------------------------------------

step {Add verification of OCSP responses} {
Valkey's TLS has no OCSP: a client that wants to know whether the server's
certificate was revoked must ask the CA itself. The following commits staple
the CA's signed response in the handshake (RFC 6066 section 8, issue #2607).

This one adds what decides whether a response may be stapled, with unit tests,
and nothing that calls it:

- ocsp_identity.c finds the issuer of a certificate, the responder's URLs and
  whether it is must-staple (RFC 7633), and makes the request.
- ocsp_verify.c verifies a response for one certificate (RFC 6960 section 3.2):
  complete DER, signed by the issuer or by a responder that the issuer
  authorized, a SingleResponse for exactly this certificate, dates.

These files need OpenSSL 3.0 and libc, and nothing of the server.
}
files src/ocsp.h src/ocsp_internal.h src/ocsp_util.c src/ocsp_time.c src/ocsp_der.c src/ocsp_identity.c \
    src/ocsp_signer.c src/ocsp_verify.c src/ocsp_config.c src/unit/test_ocsp.c src/unit/test_ocsp.cpp
inserts {src/Makefile: the server's objects} {cmake/Modules/SourceFiles.cmake: the server's sources} src/unit/*

# ---- 2 ---------------------------------------------------------------------------------------------------------------

step {Staple an OCSP response from a file} {
Add tls-ocsp-stapling and tls-ocsp-response-file: the server staples the
response in that file to the handshakes of clients that request it, if it
verifies for the server's certificate, and until it expires. Something else
must fetch it, a cron job for example.

The response belongs to the SSL_CTX: it is verified when TLS is configured, and
kept in the context's ex_data. CONFIG SET tls-ocsp-response-file, also to its
own value, configures TLS anew, as CONFIG SET tls-cert-file does. So handshakes
on I/O threads read what never changes, and need no lock.

INFO has the state. The next commit fetches the response.
}
files src/ocsp_builtin.c src/ocsp_builtin.h src/ocsp_cache.c tests/unit/tls-ocsp.tcl
adds stapling response-file
inserts src/server.h:* {src/tls.c: where contexts are put into service} {src/config.c: the table of directives} \
    {src/server.c: INFO's sections} {src/server.c: INFO tls} valkey.conf:*

# ---- 3 ---------------------------------------------------------------------------------------------------------------

step {Fetch OCSP responses in a background thread} {
Query the responder that the certificate names, or tls-ocsp-responder-url, over
plain HTTP, verify the response and staple it to the next handshakes. It is
refreshed when tls-ocsp-refresh-margin of its validity is left, and after
tls-ocsp-max-interval at the latest. After a failure the server keeps the last
valid response and retries with a back-off.

The thread does all that blocks, and starts when stapling is first turned on.
It passes responses to handshakes through an RCU-like slot: a handshake takes no
lock, does no I/O and never waits. A response belongs to the certificate now,
not to the context, so that a reload of the same certificate keeps it, and
another certificate never gets it. The response file is checked for changes
every second.

With tls-ocsp-staple-chain the intermediate CAs of the chain get the same, where
OpenSSL (3.6) can send more than one response in TLS 1.3.

DEBUG OCSP-REFRESH, OCSP-GET and OCSP-SET are for operators and tests. Responses
are not cached on disk yet, https responders and proxies not supported.
}
files src/ocsp_worker.h src/ocsp_cert.c src/ocsp_certset.c src/ocsp_chain.c src/ocsp_commands.c src/ocsp_conn.c \
    src/ocsp_env.c src/ocsp_fetch.c src/ocsp_handoff.c src/ocsp_http.c src/ocsp_publish.c src/ocsp_push.c src/ocsp_schedule.c \
    src/ocsp_slot.c src/ocsp_stapler.c src/ocsp_text.c src/ocsp_thread.c src/ocsp_worker.c tests/support/ocsp_der.tcl \
    tests/support/ocsp_responder.tcl tests/support/ocsp_util.tcl utils/ocsp-pki.tcl
adds refresh-margin max-interval retry-delay timeout responder-url issuer-file staple-chain
inserts src/debug.c:* {src/server.c: the start of threads} {src/server.c: CONFIG RESETSTAT} {src/server.c: INFO stats*}

stand_in src/ocsp_builtin.c before-3/ocsp_builtin.c
stand_in src/ocsp_builtin.h before-3/ocsp_builtin.h
stand_in tests/unit/tls-ocsp.tcl before-3/tls-ocsp.tcl

before valkey.conf {
    instead {^# By default, the server does not staple} {^#$} {
# By default, the server does not staple OCSP responses. When enabled, TLS clients that request the status of the
# server's certificate get the response in tls-ocsp-response-file in the handshake. This requires BUILD_TLS=yes, OpenSSL
# 3.0 or later, and the issuer's certificate, appended to tls-cert-file or in tls-ca-cert-file or tls-ca-cert-dir.
#
}
    instead {^# Staple the response in this DER file} {^#$} {
# The OCSP response in DER, for example fetched by a cron job. It is verified before it is stapled, and no longer stapled
# when it has expired. To read the file again, set the directive to its own value with CONFIG SET. This directive is
# protected, see enable-protected-configs.
#
}
}
before src/ocsp.h {
    block {^typedef enum ocspAnswerKind} {ocspAnswerKind;}
    lines {Called first on the OCSP thread} {^    void \(\*thread_started\)} {^#define OCSP_THREAD_NAME}
    block {What ocspRequestRefresh or ocspSet began has ended} {\(\*answered\)}
    upto {^/\* The directives' values} {^/\* Accepts "" and http or https URLs}
    upto {^/\* Initializes the engine} {^/\* Compares two certificates}
    upto {^/\* Makes a context of the server answer} {^#define OCSP_SENTENCE_MAX}
    upto {^/\* The answer of OCSP.GET} {^#endif$}
    function ocspRequestRefresh
}
before src/ocsp_config.c {
    head {ocsp_config.c - checks the values of directives.}
    upto {utils/directives.tcl parses} {^int ocspCheckResponderUrl}
    function ocspOptionText ocspFreeOptions ocspCopyOptions
    lines {<errno.h>} {<stddef.h>} {<stdlib.h>}
}
before src/ocsp_internal.h {
    lines {^#define OCSP_MAX_INTERVAL_MIN} {^#define OCSP_MAX_ISSUER_FILE} {^#define OCSP_MAX_ISSUERS} {/\* ---- configuration}
    function ocspReportAnswer ocspParseIssuers
    function ocspFreeOptions ocspCopyOptions
    block {^/\* Hooks of calls that may block} {^void ocspEnterOpenSSL}
    function ocspSourceName ocspThreadStarted ocspSingleResponseOf
    function ocspCompare
    type ocspFreshness
}
before src/ocsp_util.c {
    function ocspLeaveOpenSSL ocspEnterOpenSSL ocspThreadStarted ocspReportAnswer
}
before src/ocsp_verify.c {
    function ocspCompare ocspSingleResponseOf
}
before src/ocsp_identity.c {
    function ocspParseIssuers ocspNoPassword
}

# ---- 4 ---------------------------------------------------------------------------------------------------------------

step {Cache OCSP responses on disk} {
Keep verified responses in tls-ocsp-cache-dir, so that the first handshake after
a restart is stapled even if the responder is down. One file for each
certificate, in DER, written to a temporary file and renamed.

A cached response is verified like one from the network. A file that contradicts
a later response (good, and the certificate is revoked since) is removed before
anything else is stored. Disk trouble is only a warning.
}
files src/ocsp_persist.c
adds cache-dir

before src/ocsp.h {
    lines {^    OCSP_D_CACHE_DIR,} {^    const char \*cache_dir;}
    sub {"\.", } {}
}
before src/ocsp_config.c {
    block {^    \[OCSP_D_CACHE_DIR\] =} {\},$}
}
before src/ocsp_internal.h {
    function ocspPeekNextUpdate
    lines {^#define OCSP_CACHE_KEEP} {\(\*cache_load\)} {\(\*cache_store\)} {\(\*cache_remove\)} \
        {\(\*cache_prune\)}
    block {^/\* The cache file of a certificate} {^void ocspCachePrune}
    member cache
    sub { unusable_cache, outdated,} {}
}
before src/ocsp_verify.c {
    function ocspPeekNextUpdate
}
before src/ocsp_env.c {
    lines {\.cache_load =} {\.cache_store =} {\.cache_remove =} {\.cache_prune =}
}
before src/ocsp_cache.c {
    function ocspCachePath ocspCacheLoad ocspWriteAll ocspSyncDirectory ocspCacheStore ocspCacheRemove ocspOurFile \
        ocspCachePrune
    lines {^#define OCSP_FILE_PREFIX} {^#define OCSP_FILE_SUFFIX} {^#define OCSP_HEX_LEN} {^#define OCSP_TEMP_KEEP} \
        {<dirent.h>} {<limits.h>} {<stdio.h>}
    block {^#define OCSP_TEMP_SUFFIX} {followed by digits}
    head {ocsp_cache.c - reads files.}
}
before src/ocsp_cert.c {
    block {ocspDiffers\(old->cache_dir} {^    \}}
    lines {cert->cache.dirty = source ==} {cert->cache.outdated = source !=} {cert->cache.store_at_ms = 0;}
}
before src/ocsp_worker.c {
    upto {^/\* ---- the disk} {^/\* ---- what main handed over}
    lines {^    ocspDisk disk;} {worker.options.stapling\) ocspLoadCached} {^    dir_changed = strcmp} \
        {behind \|= ocspDiskIsBehind} {^        ocspLoadCached\(cert\);}
    every {ocspStoreDirty\(\)} {worker.disk\.\w+ =}
    block {^    if \(dir_changed\) \{} {^    \}}
    sub {int i, dir_changed;} {int i;}
    sub {int i, behind = 0;} {int i;}
    sub {return behind \|\| ocspAnythingNew} {return ocspAnythingNew}
}
before src/ocsp_builtin.h {
    lines {^    char \*cache_dir;}
    sub {reads the cached response, then starts} {starts}
}
before src/ocsp_builtin.c {
    lines {options.cache_dir = }
}
before tests/unit/tls-ocsp.tcl {
    block {^    test \{OCSP: a restart with the responder down} {^    \x7d$}
}

# ---- 5 ---------------------------------------------------------------------------------------------------------------

step {Support https responders and proxies for OCSP} {
Query https responders, whose certificates are verified with the system's roots
and the server's CA certificates, and use a proxy: that of tls-ocsp-proxy, or of
http_proxy, https_proxy and no_proxy in the environment.
}
adds proxy

before src/ocsp.h {
    lines {^    OCSP_D_PROXY,} {^    const char \*proxy;}
    sub {, "", 0 ?\x7d} ", 0\}"
    function ocspCheckProxy
}
before src/ocsp_config.c {
    block {^    \[OCSP_D_PROXY\] =} {\},$}
    function ocspEndsWithPort ocspCheckProxy
}
before src/ocsp_internal.h {
    function ocspPercentDecode ocspTlsContext ocspConnTls
    lines {^    X509_STORE \*store;  /\* trusted for https} {^    const char \*proxy;} {^#define OCSP_NO_PROXY} \
        {^    SSL \*ssl;  } {^    int tls_done;} {^    const char \*host; /\* the responder's}
}
before src/ocsp_util.c {
    function ocspPercentDecode
}
before src/ocsp_conn.c {
    function ocspTlsFail ocspTlsAgain
    upto {^/\* ---- TLS -} {^void ocspConnClose}
    as before-5/ocsp_conn.c ocspConnWrite ocspConnRead ocspConnClose
    lines {<openssl/err.h>} {<openssl/x509v3.h>}
    head {ocsp_conn.c - one connection to a responder, under one deadline.
 *
 * Sockets are non-blocking. All waiting is in one poll(), which also watches the OCSP thread's wake-up pipe; times are
 * milliseconds on the monotonic clock.}
}
before src/ocsp_fetch.c {
    head {ocsp_fetch.c - one exchange with one OCSP responder over HTTP, under one deadline (RFC 6960 appendix A, RFC 5019
 * section 5).
 *
 * OpenSSL parses URLs. Its HTTP client is not used: it speaks HTTP/1.0, hides the status, rejects in 3.0 what 3.5
 * accepts, counts whole seconds, and spends all of them on one dead address. ocsp_conn.c is the connection, ocsp_http.c
 * reads the response.}
    function ocspNoProxy ocspProxyDirective ocspNameProxySetting ocspProxyText ocspProxyParse ocspViaProxy \
        ocspProxyDenies ocspTunnel
    as before-5/ocsp_fetch.c ocspSendRequest ocspRefusesPost ocspPrefixWhere
    sub {url, proxy;  .*$} {url;}
    lines {^    char \*proxy_auth; } {^    SSL_CTX \*tls; } {^    char proxy_setting\[} {if \(ask->tls\) ok = } \
        {head.status == 407 && ocspViaProxy} {SSL_CTX_free\(ask.tls\);} {ocspUrlClear\(&ask.proxy\);} \
        {ocspFree\(ask.proxy_auth\);} {<stdlib.h>} {<strings.h>}
    sub {ocspConn c = \{-1, NULL, 0, ask->url.host, deadline} "ocspConn c = \{-1, deadline"
    sub {ocspPrefixWhere\(ask, a,} {ocspPrefixWhere(a,}
    sub {const ocspUrl \*peer = .*$} {const ocspUrl *peer = &ask->url;}
    sub {of the responder or the proxy\.} {of the responder.}
    lines {if \(!ocspProxyParse}
    sub {if \(ask.url.use_tls && .*$} "if (ask.url.use_tls) \{"
    sub {OCSP_FAIL_MEMORY, "out of memory while starting TLS"} \
        {OCSP_FAIL_TLS, "https responders are not supported: set tls-ocsp-responder-url to one with http://"}
}
before src/ocsp_handoff.c {
    lines {shared.options.proxy}
    sub {(shared.options.response_file, mine->response_file\) != 0) \|\|$} {\1;}
}
before src/ocsp_worker.c {
    sub {cert->id->store, } {}
    sub {&io, proxy\x7d} "&io\}"
    lines {const char \*proxy = worker.options.proxy}
}
before src/ocsp_cert.c {
    block {/\* Not while the way to the responder works} {consecutive_failures > 0}
    sub {way_changed \|\| } {}
}
before src/ocsp_builtin.h {
    lines {^    char \*proxy;}
    function isValidOcspProxy
}
before src/ocsp_builtin.c {
    lines {options.proxy = }
    functions isValidOcspProxy
}
before tests/unit/tls-ocsp.tcl {
    block {^    test \{OCSP: proxy is used} {^    \x7d$}
    lines {^            proxy localhost:3128}
}

# ---- 6 ---------------------------------------------------------------------------------------------------------------

step {Verify the OCSP staples of peers} {
With tls-ocsp-verify-peers the links that this server opens (to its primary, to
cluster nodes, for MIGRATE, in Sentinel) request a staple and verify it. "soft"
accepts a peer without a staple, "require" does not. A node whose certificate
was revoked gets no new link until its certificate is replaced.
}
files src/ocsp_peer.c
adds verify-peers
inserts {src/tls.c: where a link is made} src/sentinel.c:*

before src/ocsp.h {
    type ocspVerifyPeers
    lines {^    OCSP_D_VERIFY_PEERS,} {^    ocspVerifyPeers verify_peers;} {^    OCSP_PEERS    /\*}
    sub {OCSP_PEERS_NO, } {}
    function ocspRequestPeerStaple
}
before src/ocsp_config.c {
    block {^    \[OCSP_D_VERIFY_PEERS\] =} {\},$}
}
before src/ocsp_internal.h {
    type ocspPeerState
    function ocspVerifyStaple
}
before src/ocsp_verify.c {
    function ocspNamesIssuer ocspVerifyStaple
}
before src/ocsp_stapler.c {
    every {ocspPeersSetPolicy} {ocspPeersCron} {ocspPeersInfo} {ocspPeersResetCounters}
    block {OpenSSL has one callback for both roles} {^    \}}
}
before src/ocsp_builtin.h {
    lines {^    int verify_peers;} {^extern configEnum ocsp_verify_peers_enum} {^struct ssl_st;} {^#define ocspBuiltinLink}
    sub {ssl_ctx_st \*ctx, struct ssl_ctx_st \*client_ctx\);.*$} {ssl_ctx_st *ctx);}
    sub {ocspBuiltinServe\(ctx, client_ctx\) .*$} {ocspBuiltinServe(ctx) ((void)(ctx))}
    function ocspBuiltinLink
}
before src/ocsp_builtin.c {
    lines {^configEnum ocsp_verify_peers_enum} {options.verify_peers = } {^    if \(client_ctx\) ocspInstallCallback} \
        {UNUSED\(client_ctx\)}
    sub {SSL_CTX \*ctx, SSL_CTX \*client_ctx\)} {SSL_CTX *ctx)}
    sub {ssl_ctx_st \*ctx, struct ssl_ctx_st \*client_ctx\)} {ssl_ctx_st *ctx)}
    sub { /\* links to peers use this context, too.*$} {}
    functions ocspBuiltinLink
    sub { \|\| ocsp_config.verify_peers != OCSP_PEERS_NO} {}
    sub {when stapling or verify-peers is} {when stapling is}
    gsub {OCSP stapling and peer checks require} {OCSP stapling requires}
    gsub { and no peer is checked} {}
    gsub { /\* also validates verify-peers.*$} {}
}
before tests/unit/tls-ocsp.tcl {
    sub { peers_verified peers_rejected peers_missing} {}
    upto {^# The server as a TLS client} {^ocsp_lab_close}
}

# ---- 7 ---------------------------------------------------------------------------------------------------------------

step {Add --cert-status to valkey-cli and valkey-benchmark} {
With --cert-status, which implies --tls, the tools require the server to staple a
good OCSP response, or end with status 1 and a sentence that says why. They ask
no responder themselves.
}
files src/ocsp_client.c src/ocsp_tools.c src/ocsp_tools.h src/ocsp_staple.h
inserts {src/Makefile: the tools' objects} {cmake/Modules/SourceFiles.cmake: the tools' sources} src/cli_common.?:* \
    src/valkey-cli.c:* src/valkey-benchmark.c:*

before tests/unit/tls-ocsp.tcl {
    upto {^    # The option --cert-status of the tools} {^    test \{OCSP: a revocation is stapled at once}
}
