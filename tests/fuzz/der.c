/* der.c - mutations that keep DER well-formed. A wrong length stops every parser at once, so that mutations of plain
 * bytes would rarely reach the rules after the parser.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fuzz.h"
#include <stdlib.h>
#include <string.h>

#define NOWHERE ((size_t)-1)
#define MAX_NODES 4096
#define MAX_DEPTH 40

typedef struct value {
    size_t at, head, len; /* head: bytes of tag and length */
    size_t inside;        /* offset of the first nested value; 0: none */
} value;

unsigned fuzzRandom(unsigned *random) {
    *random = *random * 1664525u + 1013904223u;
    return *random >> 8;
}

/* Parses the tag and length of the value at data[at], which must end by `end`. Returns 0 if it is malformed. */
static int parse(const uint8_t *data, size_t at, size_t end, value *v) {
    size_t i, octets;

    if (at + 2 > end || (data[at] & 0x1f) == 0x1f || data[at] == 0) return 0;
    v->at = at;
    v->len = data[at + 1];
    v->head = 2;
    if (v->len > 127) {
        octets = v->len & 127;
        if (octets == 0 || octets > 3 || at + 2 + octets > end) return 0;
        for (v->len = 0, i = 0; i < octets; i++) v->len = v->len << 8 | data[at + 2 + i];
        v->head += octets;
    }
    return v->len <= end - at - v->head;
}

/* Returns 1 if data[at..end) is a sequence of well-formed values. */
static int isSequence(const uint8_t *data, size_t at, size_t end, int depth) {
    value v;

    for (; at < end; at = v.at + v.head + v.len)
        if (depth > MAX_DEPTH || !parse(data, at, end, &v)) return 0;
    return 1;
}

/* Parses a value as parse does, and sets v->inside if it contains others: by its tag, or because it wraps DER as
 * extensions do. */
static int parseNested(const uint8_t *data, size_t at, size_t end, int depth, value *v) {
    size_t from, to;

    if (!parse(data, at, end, v)) return 0;
    from = at + v->head;
    to = from + v->len;
    v->inside = 0;
    if (data[at] == 0x03 && v->len > 0 && data[from] == 0) from++; /* the count of unused bits */
    if (from == to || depth >= MAX_DEPTH) return 1;
    if ((data[at] & 0x20 || data[at] == 0x04 || data[at] == 0x03) && isSequence(data, from, to, depth))
        v->inside = from;
    return 1;
}

/* Adds the values in data[at..end), with all nested ones, to `nodes`. Returns the new count. */
static size_t collect(const uint8_t *data, size_t at, size_t end, int depth, value *nodes, size_t count) {
    value v;

    for (; at < end && count < MAX_NODES && parseNested(data, at, end, depth, &v); at = v.at + v.head + v.len) {
        nodes[count++] = v;
        if (v.inside) count = collect(data, v.inside, v.at + v.head + v.len, depth + 1, nodes, count);
    }
    return count;
}

static size_t putHead(uint8_t *out, uint8_t tag, size_t len) {
    size_t n = 0;

    out[n++] = tag;
    if (len > 127) {
        int octets = len > 65535 ? 3 : len > 255 ? 2 : 1;
        out[n++] = (uint8_t)(0x80 | octets);
        while (octets-- > 0) out[n++] = (uint8_t)(len >> 8 * octets);
    } else {
        out[n++] = (uint8_t)len;
    }
    return n;
}

typedef struct edit {
    const uint8_t *data;
    size_t at, end;       /* the bytes to replace ... */
    const uint8_t *bytes; /* ... by these */
    size_t size;
} edit;

/* Copies data[at..end) to `out`, applies the edit and corrects the lengths around it. Returns the number of bytes
 * written; `out` must have room for the data and the edit. */
static size_t copyEdited(const edit *e, size_t at, size_t end, int depth, uint8_t *out) {
    size_t n = 0;
    value v;

    while (at < end) {
        size_t to;
        if (at == e->at) {
            memcpy(out + n, e->bytes, e->size);
            n += e->size;
            at = e->end;
            continue;
        }
        if (!parseNested(e->data, at, end, depth, &v)) { /* not reached: the edit is at a value that `collect` saw */
            memcpy(out + n, e->data + at, end - at);
            return n + end - at;
        }
        to = v.at + v.head + v.len;
        if (v.inside && e->at >= v.inside && e->at < to) {
            size_t lead = v.inside - v.at - v.head, head;
            uint8_t *content = out + n + 5;
            size_t len = lead + copyEdited(e, v.inside, to, depth + 1, content + lead);
            memcpy(content, e->data + v.at + v.head, lead);
            head = putHead(out + n, e->data[at], len);
            memmove(out + n + head, content, len);
            n += head + len;
        } else {
            memcpy(out + n, e->data + at, to - at);
            n += to - at;
        }
        at = to;
    }
    return n;
}

/* Values that a responder or an attacker may send in place of another one. Octal, as a digit may follow. */
static const struct {
    const char *bytes;
    size_t size;
} odd[] = {
#define ODD(text) \
    { text, sizeof(text) - 1 }
    ODD("\005\000"),                        /* NULL */
    ODD("\001\001\377"),                    /* TRUE */
    ODD("\001\001\001"),                    /* TRUE in BER */
    ODD("\002\001\000"),                    /* INTEGER 0 */
    ODD("\002\002\000\001"),                /* INTEGER 1, not minimal */
    ODD("\012\001\006"),                    /* ENUMERATED 6 */
    ODD("\200\000"),                        /* good */
    ODD("\202\000"),                        /* unknown */
    ODD("\241\021\030\01720300101000000Z"), /* revoked */
    ODD("\030\01720300101000000Z"),         /* GeneralizedTime */
    ODD("\030\01799991231235959Z"),         /* RFC 5280's "never" */
    ODD("\030\01700000101000000Z"),         /* the year 0 */
    ODD("\030\015203001010000Z"),           /* without seconds */
    ODD("\030\02120300101000000.5Z"),       /* with a fraction */
    ODD("\030\02320300101000000+0100"),     /* with an offset */
    ODD("\027\015300101000000Z"),           /* UTCTime */
    ODD("\060\200\000\000"),                /* BER: indefinite length */
    ODD("\044\200\004\001a\000\000"),       /* BER: constructed string */
    ODD("\060\201\000"),                    /* BER: length not minimal */
    ODD("\206\000"),                        /* an empty URI */
    ODD("\206\007http://"),
    ODD("\206\014http://a\000.b"), /* a URI with a zero byte */
    ODD("\206\011HTTPS://a"),
#undef ODD
};

size_t fuzzDerMutate(uint8_t *data, size_t size, size_t max, unsigned *random, fuzzBytes *bytes) {
    static value nodes[MAX_NODES];
    static uint8_t piece[2 * FUZZ_MAX_BYTES], whole[6 * FUZZ_MAX_BYTES];
    size_t count = size <= FUZZ_MAX_BYTES ? collect(data, 0, size, 0, nodes, 0) : 0, n, len;
    edit e = {data, 0, 0, piece, 0};
    const value *v, *other;

    if (count == 0) return bytes(data, size, max);
    v = &nodes[fuzzRandom(random) % count];
    other = &nodes[fuzzRandom(random) % count];
    len = v->head + v->len;
    e.at = v->at;
    e.end = v->at + len;
    switch (fuzzRandom(random) % 12) {
    case 0: /* deleted */ break;
    case 1: /* duplicated */
        memcpy(piece, data + v->at, len);
        memcpy(piece + len, data + v->at, len);
        e.size = 2 * len;
        break;
    case 2: /* replaced by another value */
        e.size = other->head + other->len;
        memcpy(piece, data + other->at, e.size);
        break;
    case 3: /* preceded by another value */
        e.size = other->head + other->len;
        memcpy(piece, data + other->at, e.size);
        memcpy(piece + e.size, data + v->at, len);
        e.size += len;
        break;
    case 4: /* replaced or preceded by one of `odd` */
    case 5:
        n = fuzzRandom(random) % (sizeof(odd) / sizeof(odd[0]));
        memcpy(piece, odd[n].bytes, odd[n].size);
        e.size = odd[n].size;
        if (fuzzRandom(random) % 4 == 0) {
            memcpy(piece + e.size, data + v->at, len);
            e.size += len;
        }
        break;
    case 6: /* another tag */
        memcpy(piece, data + v->at, len);
        piece[0] = (uint8_t)(piece[0] ^ (1u << fuzzRandom(random) % 8));
        e.size = len;
        break;
    case 7: /* BER: a length that is not minimal, or indefinite */
        if (data[v->at] & 0x20 && fuzzRandom(random) % 2) {
            piece[0] = data[v->at];
            piece[1] = 0x80;
            memcpy(piece + 2, data + v->at + v->head, v->len);
            memset(piece + 2 + v->len, 0, 2);
            e.size = v->len + 4;
        } else {
            piece[0] = data[v->at];
            piece[1] = 0x83;
            piece[2] = (uint8_t)(v->len >> 16);
            piece[3] = (uint8_t)(v->len >> 8);
            piece[4] = (uint8_t)v->len;
            memcpy(piece + 5, data + v->at + v->head, v->len);
            e.size = v->len + 5;
        }
        break;
    case 8: /* wrapped in a SEQUENCE or an OCTET STRING */
        n = putHead(piece, fuzzRandom(random) % 2 ? 0x30 : 0x04, len);
        memcpy(piece + n, data + v->at, len);
        e.size = n + len;
        break;
    default: /* other contents */
        memcpy(piece + 5, data + v->at + v->head, v->len);
        n = bytes(piece + 5, v->len, v->len + 64 < FUZZ_MAX_BYTES ? v->len + 64 : FUZZ_MAX_BYTES);
        len = putHead(piece, data[v->at], n);
        memmove(piece + len, piece + 5, n);
        e.size = len + n;
    }
    n = copyEdited(&e, 0, size, 0, whole);
    if (n > max) return size;
    memcpy(data, whole, n);
    return n;
}

size_t fuzzDerFind(const uint8_t *data, size_t size, const int *path) {
    size_t at = 0, end = size;
    value v;

    if (!parseNested(data, 0, size, 0, &v)) return NOWHERE;
    for (; *path >= 0; path++) {
        int i;
        if (!v.inside) return NOWHERE;
        end = v.at + v.head + v.len;
        at = v.inside;
        for (i = 0; i <= *path; i++) {
            if (i > 0) at = v.at + v.head + v.len;
            if (at >= end || !parseNested(data, at, end, 0, &v)) return NOWHERE;
        }
    }
    return v.at;
}

size_t fuzzDerNext(const uint8_t *data, size_t size, size_t at) {
    value v;

    if (at >= size || !parse(data, at, size, &v)) return NOWHERE;
    return v.at + v.head + v.len;
}

void fuzzSignAgain(uint8_t *data, size_t size, size_t at, EVP_PKEY *key) {
    value all, tbs, algorithm, bits;
    EVP_MD_CTX *ctx;
    uint8_t signature[1024];
    size_t len = sizeof(signature), end;

    if (at >= size || !parseNested(data, at, size, 0, &all) || !all.inside) return;
    end = all.at + all.head + all.len;
    if (!parse(data, all.inside, end, &tbs) || !parse(data, tbs.at + tbs.head + tbs.len, end, &algorithm) ||
        !parse(data, algorithm.at + algorithm.head + algorithm.len, end, &bits))
        return;
    if (bits.len != (size_t)EVP_PKEY_get_size(key) + 1) return;
    ctx = EVP_MD_CTX_new();
    if (ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
        EVP_DigestSign(ctx, signature, &len, data + tbs.at, tbs.head + tbs.len) == 1 && len + 1 == bits.len)
        memcpy(data + bits.at + bits.head + 1, signature, len);
    EVP_MD_CTX_free(ctx);
}

static int isDer(const uint8_t *data, size_t at, size_t end, int depth) {
    value v;

    for (; at < end; at = v.at + v.head + v.len) {
        size_t shortest;
        if (depth > 2 * MAX_DEPTH || !parse(data, at, end, &v)) return 0;
        shortest = v.len < 128 ? 2 : v.len < 256 ? 3 : v.len < 65536 ? 4 : 5;
        if (v.head != shortest) return 0;
        if (data[at] < 0x40 && data[at] & 0x20 && data[at] != 0x30 && data[at] != 0x31)
            return 0; /* constructed string */
        if (data[at] & 0x20 && !isDer(data, at + v.head, at + v.head + v.len, depth + 1)) return 0;
    }
    return 1;
}

int fuzzIsDer(const uint8_t *data, size_t size) {
    return isDer(data, 0, size, 0);
}
