/* ocsp_push.c - a response that an operator pushed with OCSP.SET: verified like one from the network, for each
 * certificate in service, as the operator does not say for which it is. The worker publishes and stores it.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_worker.h"
#if OCSP_SUPPORTED
#include <stdio.h>
#include <string.h>

void ocspPushFree(ocspPush *push) {
    if (push) ocspFree(push->der);
    ocspFree(push);
}

void ocspAnswerPushes(ocspPush **pushes, const char *error) {
    while (*pushes) {
        ocspPush *push = *pushes;
        *pushes = push->next;
        ocspReportAnswer(OCSP_ANSWER_PUSH, &push->number, error);
        ocspPushFree(push);
    }
}

/* Logs and records why the response is refused for `cert`, and appends that to the outcome's text. */
static void ocspRefusePush(ocspCert *cert, const ocspError *err, ocspPushOutcome *outcome) {
    size_t used = strlen(outcome->text);

    ocspLog(OCSP_LOG_WARNING, "certificate %s: pushed OCSP response refused (%s): %s", cert->id->serial,
            ocspErrorWord(err->code), err->text);
    snprintf(cert->stats.last_error, sizeof(cert->stats.last_error), "pushed response: %s", err->text);
    cert->stats.last_error_code = err->code;
    snprintf(outcome->text + used, sizeof(outcome->text) - used, "%scertificate %s: %s", used ? "; " : "",
             cert->id->serial, err->text);
}

void ocspServePush(ocspCertSet *set,
                   const ocspOptions *options,
                   const ocspEnv *env,
                   const ocspPush *push,
                   ocspPushOutcome *outcome) {
    ocspReceived in = {{push->der, push->len}, OCSP_SOURCE_PUSHED, ocspNow(env)};
    ocspCert *unmatched = NULL;
    ocspError unmatched_error;
    int i;

    memset(outcome, 0, sizeof(*outcome));
    if (ocspHasResponseFile(options)) {
        snprintf(outcome->text, sizeof(outcome->text), OCSP_PUSH_WITH_FILE, ocspPrefix());
        return;
    }
    for (i = 0; i < set->count; i++) {
        ocspCert *cert = set->certs[i];
        ocspError err = {0};
        ocspOutcome result;
        if (!cert->active) continue;
        result = ocspAcceptResponse(cert, options, env, &in, &err);
        if (result == OCSP_OUTCOME_NEW) {
            cert->schedule.refresh_now = 0; /* as if fetched: the next refresh is at the refresh time */
            outcome->installed[outcome->count++] = cert;
            outcome->accepted = 1;
        } else if (result == OCSP_OUTCOME_UNCHANGED) {
            outcome->accepted = 1;
        } else if (!err.no_matching_certid) {
            ocspRefusePush(cert, &err, outcome);
        } else if (!unmatched || cert->index < unmatched->index) { /* the ocsp_* fields are about the first one */
            unmatched = cert;
            unmatched_error = err;
        }
    }
    if (outcome->accepted || outcome->text[0]) return;
    if (unmatched)
        ocspRefusePush(unmatched, &unmatched_error, outcome);
    else
        snprintf(outcome->text, sizeof(outcome->text), "the server has no certificate in service yet");
}

#endif /* OCSP_SUPPORTED */
