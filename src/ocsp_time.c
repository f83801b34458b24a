/* ocsp_time.c - times of certificates and responses: parsed from ASN.1, and formatted as text. In 64 bits, whatever the
 * width of time_t.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <stdio.h>

/* Whether a time has the form of RFC 5280 section 4.1.2.5: seconds, no fractions, Z. OpenSSL accepts more; clients
 * reject it. */
static int ocspIsStrictTime(const ASN1_TIME *t) {
    int n = ASN1_STRING_length(t), digits = ASN1_STRING_type(t) == V_ASN1_UTCTIME ? 12 : 14, i;
    const unsigned char *text = ASN1_STRING_get0_data(t);

    for (i = 0; i < n && text[i] >= '0' && text[i] <= '9'; i++) continue;
    return i == digits && n == digits + 1 && text[i] == 'Z';
}

/* Allocates nothing: a lack of memory must not look like an absent time. OpenSSL computes the difference, as timegm is
 * not in POSIX. */
int64_t ocspTime(const ASN1_TIME *t, int *ok) {
    static const struct tm epoch = {.tm_year = 70, .tm_mday = 1};
    struct tm tm;
    int days = 0, secs = 0;

    *ok = t && ocspIsStrictTime(t) && ASN1_TIME_to_tm(t, &tm) && OPENSSL_gmtime_diff(&days, &secs, &epoch, &tm);
    return *ok ? (int64_t)days * 86400 + secs : 0;
}

#define OCSP_DAYS_TO_1970 INT64_C(719468) /* from March 1 of year 0 */
#define OCSP_DAYS_OF_400_YEARS INT64_C(146097)

/* Not gmtime_r, which takes a time_t. The year begins in March here, so that the leap day is its last. */
char *ocspUtcText(int64_t seconds, char *out, size_t size) {
    const int64_t earliest = INT64_C(-62167219200), latest = INT64_C(253402300799); /* years 0 to 9999 */
    int64_t days, era;
    int second, of_era, year, of_year, month;

    if (seconds < earliest || seconds > latest) {
        snprintf(out, size, "?");
        return out;
    }
    second = (int)((seconds % 86400 + 86400) % 86400);
    days = (seconds - second) / 86400 + OCSP_DAYS_TO_1970;
    era = days >= 0 ? days / OCSP_DAYS_OF_400_YEARS : -1;
    of_era = (int)(days - era * OCSP_DAYS_OF_400_YEARS);
    year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    of_year = of_era - (365 * year + year / 4 - year / 100);
    month = (5 * of_year + 2) / 153; /* 0 is March */
    snprintf(out, size, "%04d-%02d-%02d %02d:%02d:%02d UTC", (int)(year + era * 400 + (month >= 10)),
             month < 10 ? month + 3 : month - 9, of_year - (153 * month + 2) / 5 + 1, second / 3600, second / 60 % 60,
             second % 60);
    return out;
}

#endif /* OCSP_SUPPORTED */
