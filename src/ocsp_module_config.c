/* ocsp_module_config.c - the module's directives: registers the engine's table (ocsp_config.c) with the server and
 * stores the values for the engine.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_module.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int moduleWanted(void) {
    return module.options.stapling || module.options.verify_peers != OCSP_PEERS_NO;
}

/* Each directive is registered with its row of the table as private data. Values are in module.options; module.strings
 * owns the memory of strings. */
static size_t indexOf(const void *directive) {
    return (size_t)((const ocspDirective *)directive - ocsp_directives);
}

static int *numberOf(const void *directive) {
    return (int *)(void *)((char *)&module.options + ((const ocspDirective *)directive)->offset);
}

static const char **textOf(const void *directive) {
    return (const char **)(void *)((char *)&module.options + ((const ocspDirective *)directive)->offset);
}

/* Getter of a bool or an enum. */
static int getInt(const char *name, void *directive) {
    (void)name;
    return *numberOf(directive);
}

static int setInt(const char *name, int value, void *directive, ServerString **error) {
    (void)name;
    (void)error;
    *numberOf(directive) = value;
    return SERVER_OK;
}

static long long getNumber(const char *name, void *directive) {
    (void)name;
    return *numberOf(directive);
}

static int setNumber(const char *name, long long value, void *directive, ServerString **error) {
    const ocspDirective *d = directive;
    const char *why = NULL;
    char text[24];

    (void)name;
    snprintf(text, sizeof(text), "%lld", value);
    if (d->check && !d->check(text, &why)) {
        setError(error, why);
        return SERVER_ERR;
    }
    *numberOf(directive) = (int)value; /* within the registered bounds */
    return SERVER_OK;
}

/* Returns the value as it was set, also of a sensitive directive: CONFIG REWRITE writes what the getter returns. */
static ServerString *getString(const char *name, void *directive) {
    (void)name;
    return module.strings[indexOf(directive)];
}

static int setString(const char *name, ServerString *value, void *directive, ServerString **error) {
    const ocspDirective *d = directive;
    size_t len;
    const char *chars = Server_StringPtrLen(value, &len), *why = "the value holds a zero byte";
    ServerString **slot = &module.strings[indexOf(d)];
    int ok = strlen(chars) == len && (!d->check || d->check(chars, &why));

    (void)name;
    if (!ok) {
        setError(error, why);
        return SERVER_ERR;
    }
    if (*slot) Server_FreeString(NULL, *slot);
    *slot = Server_CreateString(NULL, chars, len);
    if (d->type == OCSP_PERCENT)
        ocspParseRefreshMargin(chars, numberOf(d), &why);
    else
        *textOf(d) = Server_StringPtrLen(*slot, NULL);
    return SERVER_OK;
}

static int registerDirective(ServerCtx *ctx, const ocspDirective *d, ServerConfigApply *apply) {
    static const char *peers[] = {"no", "soft", "require"};
    static const int peers_values[] = {OCSP_PEERS_NO, OCSP_PEERS_SOFT, OCSP_PEERS_REQUIRE};
    unsigned flags = (unsigned)((d->guarded ? SERVER_CONFIG_PROTECTED : SERVER_CONFIG_DEFAULT) |
                                (d->sensitive ? SERVER_CONFIG_SENSITIVE : SERVER_CONFIG_DEFAULT));
    void *row = (void *)d;

    switch (d->type) {
    case OCSP_BOOL:
        return Server_RegisterBoolConfig(ctx, d->name, strcmp(d->fallback, "yes") == 0, flags, getInt, setInt, apply,
                                         row);
    case OCSP_NUMBER:
        return Server_RegisterNumericConfig(ctx, d->name, atoi(d->fallback), flags, d->min, d->max, getNumber,
                                            setNumber, apply, row);
    case OCSP_PEERS:
        return Server_RegisterEnumConfig(ctx, d->name, OCSP_PEERS_NO, flags, peers, peers_values, 3, getInt, setInt,
                                         apply, row);
    default: return Server_RegisterStringConfig(ctx, d->name, d->fallback, flags, getString, setString, apply, row);
    }
}

int registerDirectives(ServerCtx *ctx, ServerConfigApply *apply) {
    int i;

    for (i = 0; i < OCSP_DIRECTIVES; i++)
        if (registerDirective(ctx, &ocsp_directives[i], apply) != SERVER_OK) return 0;
    return 1;
}
