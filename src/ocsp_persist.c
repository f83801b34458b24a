/* ocsp_persist.c - keeps the cached responses in line with the current ones, so that a restart staples them at once,
 * and never staples a response that a later one contradicts. ocsp_cache.c has the file operations.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <string.h>

#define OCSP_STORE_RETRY_MS (60 * 1000) /* between attempts after a disk failure */
#define OCSP_PRUNE_MS (3600 * 1000)     /* between prunes, which read all cache files */

static const char *ocspCacheDir(const ocspDisk *disk) {
    return disk->options->cache_dir ? disk->options->cache_dir : "";
}

/* Whether responses are cached: cache-dir is set, and no response file. */
static int ocspCaches(const ocspDisk *disk) {
    return *ocspCacheDir(disk) && !ocspHasResponseFile(disk->options);
}

/* The contents of one cache file. */
typedef struct ocspCachedFile {
    unsigned char *der; /* owned */
    size_t len;
    int64_t mtime;
} ocspCachedFile;

static int ocspLoadFile(const ocspDisk *disk,
                        const char *dir,
                        const ocspCert *cert,
                        ocspCachedFile *file,
                        ocspError *err) {
    int found;

    memset(file, 0, sizeof(*file));
    ocspLeaveOpenSSL(disk->io);
    found = disk->env->cache_load(dir, cert->id, &file->der, &file->len, &file->mtime, err);
    ocspEnterOpenSSL(disk->io);
    return found;
}

static ocspOutcome ocspAcceptFile(const ocspDisk *disk, ocspCert *cert, const ocspCachedFile *file, ocspError *err) {
    ocspReceived in = {{file->der, file->len}, OCSP_SOURCE_CACHE, file->mtime};

    return ocspAcceptResponse(cert, disk->options, disk->env, &in, err);
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

ocspOutcome ocspDiskLoad(ocspDisk *disk, ocspCert *cert) {
    ocspOutcome outcome = OCSP_OUTCOME_INVALID;
    int64_t now = ocspNow(disk->env);
    ocspCachedFile file;
    ocspError err = {0};

    if (cert->cache.checked || !cert->active || !ocspCaches(disk) || !cert->id->issuer || ocspHasValid(cert, disk->env))
        return outcome;
    if (cert->cache.load_at_ms && disk->env->mono_ms() < cert->cache.load_at_ms) return outcome;
    if (ocspLoadFile(disk, ocspCacheDir(disk), cert, &file, &err)) outcome = ocspAcceptFile(disk, cert, &file, &err);
    if (outcome == OCSP_OUTCOME_NEW || outcome == OCSP_OUTCOME_UNCHANGED) {
        if (outcome == OCSP_OUTCOME_NEW && disk->previous_dirs[0]) cert->cache.outdated = 1;
        if (cert->current.source == OCSP_SOURCE_CACHE) cert->stats.last_success = file.mtime < now ? file.mtime : now;
        cert->cache.checked = 1;
    } else if (err.kind == OCSP_ERR_NONE) {
        cert->cache.checked = 1;
    } else {
        /* Memory or descriptors may have run out: try again, or a usable response would be ignored until the next
         * restart. */
        cert->cache.load_at_ms = disk->env->mono_ms() + OCSP_STORE_RETRY_MS;
        if (!cert->logged.unusable_cache)
            ocspLog(OCSP_LOG_NOTICE, "certificate %s: cached response not used (%s): %s; requesting a new one",
                    cert->id->serial, ocspErrorWord(err.code), err.text);
        cert->logged.unusable_cache = 1;
    }
    ocspFree(file.der);
    return outcome;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

/* How the cached response of a certificate compares with the current one. */
typedef enum {
    OCSP_CACHED_HARMLESS, /* none, the same status, or not stapleable */
    OCSP_CACHED_NEWER,    /* newer than the current response */
    /* an older response with another status, or, for a revoked certificate, one that may be good */
    OCSP_CACHED_CONTRADICTS,
} ocspCachedState;

/* Compares the cached response in `dir` with the current one of `cert`, and accepts it if it is newer and `outcome` is
 * not NULL. For a revoked certificate a file that cannot be read or verified now (out of memory, wrong clock) counts as
 * good, because it may verify after a restart. */
static ocspCachedState ocspCompareCached(const ocspDisk *disk, ocspCert *cert, const char *dir, ocspOutcome *outcome) {
    ocspCachedState cached = cert->current.revoked ? OCSP_CACHED_CONTRADICTS : OCSP_CACHED_HARMLESS;
    ocspCachedFile file;
    ocspResponse found;
    ocspError err = {0};
    int ok = ocspLoadFile(disk, dir, cert, &file, &err);

    if ((!ok && err.kind == OCSP_ERR_NONE) ||
        (ok && file.len == cert->current.len && memcmp(file.der, cert->current.der, file.len) == 0)) {
        cached = OCSP_CACHED_HARMLESS;
    } else if (ok && ocspVerifyFile(cert, disk->env, (ocspBytes){file.der, file.len}, file.mtime, &found, &err)) {
        cached = found.revoked == cert->current.revoked ? OCSP_CACHED_HARMLESS : OCSP_CACHED_CONTRADICTS;
        if (ocspCompare(&cert->current, &found, ocspNow(disk->env)) == OCSP_FRESH_NEWER) cached = OCSP_CACHED_NEWER;
        ocspResponseClear(&found);
    }
    if (cached == OCSP_CACHED_NEWER && outcome) {
        *outcome = ocspAcceptFile(disk, cert, &file, &err);
        /* out of memory accepting it: store the current response anyway */
        if (*outcome != OCSP_OUTCOME_NEW && *outcome != OCSP_OUTCOME_UNCHANGED) cached = OCSP_CACHED_HARMLESS;
    }
    ocspFree(file.der);
    return cached;
}

/* Removes the cached response in `dir` if it contradicts the current one, or accepts it if it is newer and `outcome` is
 * not NULL. Returns the state of the file afterwards; if the removal failed *err has the sentence. */
static ocspCachedState ocspRemoveContradicting(const ocspDisk *disk,
                                               ocspCert *cert,
                                               const char *dir,
                                               ocspOutcome *outcome,
                                               ocspError *err) {
    ocspCachedState cached = ocspCompareCached(disk, cert, dir, outcome);
    int removed;

    if (cached != OCSP_CACHED_CONTRADICTS) return cached;
    ocspLeaveOpenSSL(disk->io);
    removed = disk->env->cache_remove(dir, cert->id, err);
    ocspEnterOpenSSL(disk->io);
    return removed ? OCSP_CACHED_HARMLESS : cached;
}

/* ---- storing ----------------------------------------------------------------------------------------------------- */

/* Logs once what a restart would do after a disk failure. `remove_error`: a cached response that contradicts the current
 * one could not be removed. `store_error`: the current response could not be stored. NULL: no such failure. */
static void ocspLogDisk(ocspDisk *disk, ocspCert *cert, const ocspError *remove_error, const ocspError *store_error) {
    if (remove_error && !cert->logged.outdated) {
        ocspLog(OCSP_LOG_WARNING,
                "certificate %s: outdated response not removed (%s): %s. The file may contain an older response that "
                "says %s, which a restart would staple until that expires: remove the file, or make its directory "
                "writable",
                cert->id->serial, ocspErrorWord(remove_error->code), remove_error->text,
                cert->current.revoked ? "good" : "revoked");
    } else if (!remove_error && cert->logged.outdated) {
        ocspLog(OCSP_LOG_NOTICE, "certificate %s: no outdated response is on disk any more", cert->id->serial);
    }
    cert->logged.outdated = remove_error != NULL;
    if (store_error && !remove_error && !disk->logged_failure)
        ocspLog(
            OCSP_LOG_WARNING,
            "certificate %s: response not cached (%s): %s; still stapling from memory, a restart will refetch. Make "
            "%scache-dir writable, or choose another",
            cert->id->serial, ocspErrorWord(store_error->code), store_error->text, ocspPrefix());
    if (store_error) disk->logged_failure = 1;
}

/* Brings the cache in line with the current response. Returns 1 if the response was stored. A contradicting response is
 * removed first, so that a kill or a full disk in between leaves none rather than one that a restart must not staple;
 * then the current response is stored. A newer response that another server stored in the same directory is accepted,
 * not overwritten. Another server may still store one between comparison and rename: that window is a few milliseconds,
 * and the next response closes it. */
static int ocspSync(ocspDisk *disk, ocspCert *cert, ocspOutcome *outcome) {
    const char *dir = ocspCacheDir(disk);
    /* Without the issuer, which a reload may have removed, nothing can be verified: comparing is postponed. */
    int i, verifiable = cert->id->issuer != NULL, storing = cert->cache.dirty && ocspCaches(disk), stored = 0,
           outdated = 0;
    ocspCachedState cached = OCSP_CACHED_HARMLESS;
    ocspError stale = {0}, err = {0};

    for (i = 0; verifiable && i < OCSP_PREVIOUS_DIRS && disk->previous_dirs[i]; i++)
        outdated |=
            ocspRemoveContradicting(disk, cert, disk->previous_dirs[i], NULL, &stale) == OCSP_CACHED_CONTRADICTS;
    if (verifiable && *dir)
        cached = ocspRemoveContradicting(disk, cert, dir, ocspCaches(disk) ? outcome : NULL, &stale);
    if (storing && cached != OCSP_CACHED_NEWER) {
        ocspLeaveOpenSSL(disk->io);
        stored = disk->env->cache_store(dir, cert->id, cert->current.der, cert->current.len, &err);
        ocspEnterOpenSSL(disk->io);
        if (stored) cached = OCSP_CACHED_HARMLESS;
        cert->cache.dirty = !stored;
    }
    if (verifiable) cert->cache.outdated = outdated || cached == OCSP_CACHED_CONTRADICTS;
    ocspLogDisk(disk, cert, cert->cache.outdated && (verifiable || cert->logged.outdated) ? &stale : NULL,
                storing && cert->cache.dirty ? &err : NULL);
    if ((verifiable && cert->cache.outdated) || (storing && cert->cache.dirty))
        cert->cache.store_at_ms = disk->env->mono_ms() + OCSP_STORE_RETRY_MS;
    if (stored && disk->logged_failure) {
        ocspLog(OCSP_LOG_NOTICE, "OCSP responses are cached on disk again");
        disk->logged_failure = 0;
    }
    return stored;
}

int ocspDiskIsBehind(const ocspDisk *disk, const ocspCert *cert) {
    return cert->current.der && ((cert->cache.outdated && cert->id->issuer) || (cert->cache.dirty && ocspCaches(disk)));
}

int ocspDiskSync(ocspDisk *disk, ocspCert *cert, ocspOutcome *outcome) {
    *outcome = OCSP_OUTCOME_UNCHANGED;
    if (!ocspDiskIsBehind(disk, cert)) return 0;
    if (cert->cache.store_at_ms && disk->env->mono_ms() < cert->cache.store_at_ms) return 0;
    return ocspSync(disk, cert, outcome);
}

void ocspDiskPrune(ocspDisk *disk) {
    if (disk->env->mono_ms() < disk->prune_at_ms) return;
    disk->prune_at_ms = disk->env->mono_ms() + OCSP_PRUNE_MS;
    ocspLeaveOpenSSL(disk->io);
    disk->env->cache_prune(disk->options->cache_dir, ocspNow(disk->env), disk->io);
    ocspEnterOpenSSL(disk->io);
}

/* ---- earlier directories ----------------------------------------------------------------------------------------- */

/* The files in the old directory are left for another server, or for a restart with the old directive. Nothing is
 * stored there any more, but a file that contradicts a later response must still be removed. */
void ocspDiskChanged(ocspDisk *disk, char *dir) {
    const char *now = ocspCacheDir(disk);
    int i, kept = 0;

    disk->logged_failure = 0;
    disk->prune_at_ms = 0;
    if (!dir) return;
    for (i = 0; i < OCSP_PREVIOUS_DIRS; i++) { /* drop the new directory, and the one just left */
        char *previous = disk->previous_dirs[i];
        disk->previous_dirs[i] = NULL;
        if (previous && (strcmp(previous, now) == 0 || strcmp(previous, dir) == 0)) {
            ocspFree(previous);
            previous = NULL;
        }
        if (previous) disk->previous_dirs[kept++] = previous;
    }
    if (!*dir) {
        ocspFree(dir);
        return;
    }
    ocspFree(disk->previous_dirs[OCSP_PREVIOUS_DIRS - 1]);
    memmove(disk->previous_dirs + 1, disk->previous_dirs, sizeof(disk->previous_dirs) - sizeof(disk->previous_dirs[0]));
    disk->previous_dirs[0] = dir;
}

/* ---- only for the module and the tests --------------------------------------------------------------------------- */

void ocspDiskFree(ocspDisk *disk) {
    int i;

    for (i = 0; i < OCSP_PREVIOUS_DIRS; i++) ocspFree(disk->previous_dirs[i]);
    memset(disk, 0, sizeof(*disk));
}

#endif /* OCSP_SUPPORTED */
