/* SPDX-License-Identifier: MIT
 * Names that fields of logs usually have. */
#include "format_names.h"

#include <string.h>

/* The first NGINX of them are the variables of nginx. */
static const struct format_name format_names_all[] = {
    {"remote_addr", {.role = ROLE_ADDRESS, .rank = RANK_GOOD}},
    {"realip_remote_addr", {.role = ROLE_ADDRESS, .rank = RANK_LOW}},
    {"proxy_protocol_addr", {.role = ROLE_ADDRESS, .rank = RANK_USUAL}},
    {"time_local", {.role = ROLE_TIME, .form = TIME_CLF, .rank = RANK_USUAL}},
    {"time_iso8601", {.role = ROLE_TIME, .form = TIME_ISO, .rank = RANK_USUAL}},
    {"msec", {.role = ROLE_TIME, .form = LOG_TIME_S, .rank = RANK_GOOD}},
    {"request", {.role = ROLE_REQUEST, .rank = RANK_USUAL}},
    {"request_method", {.role = ROLE_METHOD, .rank = RANK_GOOD}},
    {"request_uri", {.role = ROLE_TARGET, .rank = RANK_GOOD}},
    {"uri", {.role = ROLE_PATH, .rank = RANK_USUAL}},
    {"document_uri", {.role = ROLE_PATH, .rank = RANK_USUAL}},
    {"args", {.role = ROLE_QUERY, .rank = RANK_USUAL}},
    {"query_string", {.role = ROLE_QUERY, .rank = RANK_USUAL}},
    {"host", {.role = ROLE_HOST, .rank = RANK_GOOD}},
    {"http_host", {.role = ROLE_HOST, .rank = RANK_GOOD}},
    {"server_name", {.role = ROLE_HOST, .rank = RANK_LOW}},
    {"status", {.role = ROLE_STATUS, .rank = RANK_USUAL}},
    {"request_time", {.role = ROLE_DURATION, .form = LOG_TIME_S, .rank = RANK_USUAL}},
    {"http_user_agent", {.role = ROLE_AGENT, .rank = RANK_USUAL}},

    {"ts", TIME_OF(TIME_ANY, RANK_USUAL)},
    {"@timestamp", TIME_OF(TIME_ANY, RANK_USUAL)},
    {"timestamp", TIME_OF(TIME_ANY, RANK_USUAL)},
    {"time", TIME_OF(TIME_ANY, RANK_LOW)},
    {"datetime", TIME_OF(TIME_ANY, RANK_LOW)},
    {"date", TIME_OF(TIME_ANY, RANK_LOW)},
    {"start_time", BEGIN_OF(TIME_ANY, RANK_LOW)},
    {"startTime", BEGIN_OF(TIME_ANY, RANK_LOW)},
    {"duration", DURATION_OF(LOG_TIME_GUESS)},
    {"latency", DURATION_OF(LOG_TIME_GUESS)},
    {"elapsed", DURATION_OF(LOG_TIME_GUESS)},
    {"duration_s", DURATION_OF(LOG_TIME_S)},
    {"duration_ms", DURATION_OF(LOG_TIME_MS)},
    {"durationMs", DURATION_OF(LOG_TIME_MS)},
    {"latency_ms", DURATION_OF(LOG_TIME_MS)},
    {"elapsed_ms", DURATION_OF(LOG_TIME_MS)},
    {"response_time_ms", DURATION_OF(LOG_TIME_MS)},
    {"request_time_ms", DURATION_OF(LOG_TIME_MS)},
    {"responseTime", DURATION_OF(LOG_TIME_MS)}, /* pino-http */
    {"duration_us", DURATION_OF(LOG_TIME_US)},
    {"duration_ns", DURATION_OF(LOG_TIME_NS)},
    {"client_ip", IS(ROLE_ADDRESS, RANK_GOOD)},
    {"clientIp", IS(ROLE_ADDRESS, RANK_GOOD)},
    {"remote_ip", IS(ROLE_ADDRESS, RANK_GOOD)},
    {"remoteIp", IS(ROLE_ADDRESS, RANK_GOOD)},
    {"ip", IS(ROLE_ADDRESS, RANK_USUAL)},
    {"client", IS(ROLE_ADDRESS, RANK_USUAL)},
    {"client_addr", IS(ROLE_ADDRESS, RANK_USUAL)},
    {"remoteAddr", IS(ROLE_ADDRESS, RANK_USUAL)},
    {"remoteAddress", IS(ROLE_ADDRESS, RANK_USUAL)},
    {"remote_address", IS(ROLE_ADDRESS, RANK_USUAL)},
    {"remote", IS(ROLE_ADDRESS, RANK_LOW)},
    {"method", IS(ROLE_METHOD, RANK_USUAL)},
    {"verb", IS(ROLE_METHOD, RANK_USUAL)},
    {"http_method", IS(ROLE_METHOD, RANK_USUAL)},
    {"url", IS(ROLE_TARGET, RANK_USUAL)},
    {"path", IS(ROLE_PATH, RANK_USUAL)},
    {"request_path", IS(ROLE_PATH, RANK_USUAL)},
    {"query", IS(ROLE_QUERY, RANK_USUAL)},
    {"vhost", IS(ROLE_HOST, RANK_USUAL)},
    {"domain", IS(ROLE_HOST, RANK_LOW)},
    {"authority", IS(ROLE_HOST, RANK_USUAL)},
    {"status_code", IS(ROLE_STATUS, RANK_USUAL)},
    {"statusCode", IS(ROLE_STATUS, RANK_USUAL)},
    {"response_code", IS(ROLE_STATUS, RANK_USUAL)},
    {"code", IS(ROLE_STATUS, RANK_LOW)},
    {"user_agent", IS(ROLE_AGENT, RANK_USUAL)},
    {"userAgent", IS(ROLE_AGENT, RANK_USUAL)},
    {"agent", IS(ROLE_AGENT, RANK_LOW)},
    {"ua", IS(ROLE_AGENT, RANK_LOW)},
};
enum { NAMES = sizeof format_names_all / sizeof format_names_all[0], NGINX = 19 };

const struct format_use *format_names_nginx(const char *name) {
    for (size_t i = 0; i < NGINX; i++)
        if (strcmp(format_names_all[i].name, name) == 0) return &format_names_all[i].use;
    return NULL;
}

const struct format_name *format_names_usual(size_t *n) {
    *n = NAMES;
    return format_names_all;
}

const struct format_use *format_names_find(const char *name, size_t len) {
    for (size_t i = 0; i < NAMES; i++)
        if (format_use_alike(format_names_all[i].name, strlen(format_names_all[i].name), name, len))
            return &format_names_all[i].use;
    return NULL;
}
