/* SPDX-License-Identifier: MIT
 * The commands of a decision, and their replies. */
#include "redis/command.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "conn/resp.h"
#include "group.h"
#include "scripts.h" /* made from lua/ by the build */

const struct steady__script steady__scripts[STEADY__VERBS] = {
    [STEADY__CONSUME] = {consume_lua, sizeof consume_lua - 1, STEADY__CONSUME_SHA1},
    [STEADY__PEEK] = {peek_lua, sizeof peek_lua - 1, STEADY__PEEK_SHA1},
    [STEADY__RESET] = {reset_lua, sizeof reset_lua - 1, STEADY__RESET_SHA1},
    [STEADY__CONSUME_ALL] = {consume_all_lua, sizeof consume_all_lua - 1, STEADY__CONSUME_ALL_SHA1},
    [STEADY__PEEK_ALL] = {peek_all_lua, sizeof peek_all_lua - 1, STEADY__PEEK_ALL_SHA1},
    [STEADY__SETTLE] = {settle_lua, sizeof settle_lua - 1, STEADY__SETTLE_SHA1},
    [STEADY__RESET_ALL] = {reset_all_lua, sizeof reset_all_lua - 1, STEADY__RESET_ALL_SHA1},
};

/* ---- The packed argument of a script ----
 *
 * lua/bucket.lua and lua/parts.lua define it. The scripts read it in half the time that a text takes. */

#define PACKED_PLAIN 16  /* bytes, without drops, block and kind */
#define PACKED_AMOUNT 12 /* where the amount is */

static char *command_pack_integer(char *out, int64_t number) {
    const uint32_t word = htole32((uint32_t)number);
    memcpy(out, &word, sizeof word);
    return out + sizeof word;
}

static char *command_pack_double(char *out, int64_t us) {
    const double number = (double)us;
    uint64_t word;
    memcpy(&word, &number, sizeof word);
    word = htole64(word);
    memcpy(out, &word, sizeof word);
    return out + sizeof word;
}

static char *command_pack_plain(char *out, const struct steady__rate *rate, int64_t amount) {
    out = command_pack_double(command_pack_integer(out, rate->capacity), rate->recharge);
    return command_pack_integer(out, amount);
}

static char *command_pack_rest(char *out, const struct steady__rate *rate) {
    return command_pack_double(command_pack_integer(out, rate->drops), rate->block);
}

/* ---- Commands on several keys ---- */

#define GROUP_HEAD_MAX 256  /* what comes before the keys, without the text of the script */
#define SCRIPT_PART_MAX 104 /* of a key and its argument, without the bytes of the key */
#define MODULE_PART_MAX 224 /* the same */

size_t steady__command_group_room(const struct steady__call *call, bool eval) {
    const size_t n = call->group->n, text_len = steady__scripts[call->verb].text_len;
    const size_t to_module = n * MODULE_PART_MAX, as_eval = n * SCRIPT_PART_MAX + text_len;
    size_t room = GROUP_HEAD_MAX + (eval && as_eval > to_module ? as_eval : to_module);
    for (size_t i = 0; i < n; i++)
        room += call->group->members[i].key_len;
    return room;
}

static char *command_put_text(char *out, const char *text) { return steady__resp_put_bulk(out, text, strlen(text)); }

static char *command_put_count(char *out, size_t argc) {
    out = steady__resp_put_number(steady__resp_put(out, "*", 1), (int64_t)argc);
    return steady__resp_put(out, "\r\n", 2);
}

static char *command_put_keys(char *out, const struct steady__group *group) {
    for (size_t i = 0; i < group->n; i++)
        out = steady__resp_put_bulk(out, group->members[i].key, group->members[i].key_len);
    return out;
}

/* Numbers with spaces between them, as one argument. */
static char *command_put_numbers(char *out, const int64_t *numbers, size_t n) {
    char argument[160], *end = argument;
    for (size_t i = 0; i < n; i++) {
        if (i > 0) *end++ = ' ';
        end = steady__resp_put_number(end, numbers[i]);
    }
    return steady__resp_put_bulk(out, argument, (size_t)(end - argument));
}

/* lua/parts.lua and lua/settle.lua define the arguments. */
static char *command_put_member(char *out, enum steady__verb verb, const struct steady__member *member) {
    const struct steady__rate *rate = member->part.rate;
    const struct steady__settlement *s = &member->settlement;
    if (verb == STEADY__SETTLE)
        return command_put_numbers(out,
                                   (const int64_t[]){rate->capacity, rate->recharge, rate->drops, s->reserved,
                                                     s->moment, s->actual, s->same_rate},
                                   7);
    char packed[STEADY__COMMAND_ARGUMENT_MAX], *end = command_pack_plain(packed, rate, member->part.amount);
    if (rate->drops != 1 || rate->block != 0 || member->part.kind != STEADY__TAKE) {
        end = command_pack_rest(end, rate);
        *end++ = (char)member->part.kind;
    }
    return steady__resp_put_bulk(out, packed, (size_t)(end - packed));
}

static size_t command_put_group(char *out, const struct steady__call *call, const char *name, const char *what,
                                size_t what_len) {
    const struct steady__group *group = call->group;
    const bool each = call->verb != STEADY__RESET_ALL, how = each && call->verb != STEADY__SETTLE;
    char *end = command_put_count(out, 3 + group->n + how + (each ? group->n : 0));
    end = command_put_text(end, name);
    end = steady__resp_put_bulk(end, what, what_len);
    end = command_put_keys(steady__resp_put_integer(end, (int64_t)group->n), group);
    if (how) end = command_put_numbers(end, (const int64_t[]){group->how.max_wait, group->how.at_least}, 2);
    for (size_t i = 0; each && i < group->n; i++)
        end = command_put_member(end, call->verb, &group->members[i]);
    return (size_t)(end - out);
}

/* ---- Commands ---- */

/* The encoded limit is the packed argument. A command puts its amount into it. */
void steady__command_encode_limit(struct steady__terms *terms) {
    const struct steady__rate *rate = &terms->rate;
    char *end = command_pack_plain(terms->encoded, rate, 0);
    if (rate->drops != 1 || rate->block != 0) end = command_pack_rest(end, rate);
    terms->encoded_len = (size_t)(end - terms->encoded);
}

size_t steady__command_argument(char *out, const struct steady__call *call) {
    memcpy(out, call->terms->encoded, call->terms->encoded_len);
    command_pack_integer(out + PACKED_AMOUNT, call->amount);
    return call->terms->encoded_len;
}

static size_t command_put_command(char *out, const struct steady__call *call, const char *name, const char *what,
                                  size_t what_len) {
    char *end = steady__resp_put(out, "*5\r\n", 4);
    end = steady__resp_put_bulk(end, name, strlen(name));
    end = steady__resp_put_bulk(end, what, what_len);
    end = steady__resp_put(end, "$1\r\n1\r\n", 7);
    end = steady__resp_put_bulk(end, call->key, call->key_len);
    char packed[STEADY__COMMAND_ARGUMENT_MAX];
    end = steady__resp_put_bulk(end, packed, steady__command_argument(packed, call));
    return (size_t)(end - out);
}

size_t steady__command_evalsha(char *out, const struct steady__call *call) {
    if (call->group != NULL) return command_put_group(out, call, "EVALSHA", steady__scripts[call->verb].sha1, 40);
    return command_put_command(out, call, "EVALSHA", steady__scripts[call->verb].sha1, 40);
}

size_t steady__command_eval(char *out, const struct steady__call *call) {
    const struct steady__script *script = &steady__scripts[call->verb];
    if (call->group != NULL) return command_put_group(out, call, "EVAL", script->text, script->text_len);
    return command_put_command(out, call, "EVAL", script->text, script->text_len);
}

size_t steady__command_script_load(char *out, enum steady__verb verb) {
    char *end = steady__resp_put(out, "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n", 26);
    return (size_t)(steady__resp_put_bulk(end, steady__scripts[verb].text, steady__scripts[verb].text_len) - out);
}

static char *command_put_option(char *out, const char *name, int64_t value) {
    return steady__resp_put_integer(steady__resp_put_bulk(out, name, strlen(name)), value);
}

/* PART and what follows it. */
static char *command_put_part(char *out, enum steady__verb verb, const struct steady__member *member, size_t *argc) {
    static const char *const kinds[STEADY__KINDS] = {
        [STEADY__TAKE] = "take", [STEADY__LOOK] = "look", [STEADY__CHARGE] = "charge", [STEADY__SHADOW] = "shadow"};
    const struct steady__rate *rate = member->part.rate;
    const struct steady__part *part = &member->part;
    const struct steady__settlement *s = &member->settlement;
    const bool settle = verb == STEADY__SETTLE, block = verb == STEADY__CONSUME_ALL && rate->block != 0;
    const bool amount = !settle && part->amount != 1, kind = !settle && part->kind != STEADY__TAKE;
    *argc += 3 + 2 * (size_t)((rate->drops != 1) + block + amount + kind + 3 * settle) + (settle && !s->same_rate);
    out = command_put_text(out, "PART");
    out = steady__resp_put_integer(steady__resp_put_integer(out, rate->capacity), rate->recharge);
    if (rate->drops != 1) out = command_put_option(out, "DROPS", rate->drops);
    if (block) out = command_put_option(out, "BLOCK", rate->block);
    if (amount) out = command_put_option(out, "AMOUNT", part->amount);
    if (kind) out = command_put_text(command_put_text(out, "KIND"), kinds[part->kind]);
    if (!settle) return out;
    out = command_put_option(out, "RESERVED", s->reserved);
    out = command_put_option(out, "MOMENT", s->moment);
    out = command_put_option(out, "ACTUAL", s->actual);
    return s->same_rate ? out : command_put_text(out, "OTHERRATE");
}

/* name numkeys key ... [WAIT us] [ATLEAST n] PART ...; of a reset: name key ... The number of arguments comes first,
 * but is known last. So the rest is written behind the longest number, and moved. */
static size_t command_put_group_to_module(char *out, const struct steady__call *call) {
    static const char *const names[STEADY__VERBS] = {[STEADY__CONSUME_ALL] = "STEADY.CONSUMEALL",
                                                     [STEADY__PEEK_ALL] = "STEADY.PEEKALL",
                                                     [STEADY__SETTLE] = "STEADY.SETTLE",
                                                     [STEADY__RESET_ALL] = "STEADY.RESET"};
    const struct steady__group *group = call->group;
    const bool parts = call->verb != STEADY__RESET_ALL, how = parts && call->verb != STEADY__SETTLE;
    const bool wait = how && group->how.max_wait > 0, at_least = how && group->how.at_least > 0;
    size_t argc = 1 + group->n + parts + 2 * (size_t)(wait + at_least);
    char *rest = out + 32, *end = command_put_text(rest, names[call->verb]);
    if (parts) end = steady__resp_put_integer(end, (int64_t)group->n);
    end = command_put_keys(end, group);
    if (wait) end = command_put_option(end, "WAIT", group->how.max_wait);
    if (at_least) end = command_put_option(end, "ATLEAST", group->how.at_least);
    for (size_t i = 0; parts && i < group->n; i++)
        end = command_put_part(end, call->verb, &group->members[i], &argc);
    char *head_end = command_put_count(out, argc);
    memmove(head_end, rest, (size_t)(end - rest));
    return (size_t)(head_end - out) + (size_t)(end - rest);
}

/* name key max_capacity drop_recharge [DROPS n] [BLOCK us] [AMOUNT n]. A reset has no limit, and a peek no block. */
size_t steady__command_module(char *out, const struct steady__call *call) {
    static const char *const names[3] = {
        [STEADY__CONSUME] = "STEADY.CONSUME", [STEADY__PEEK] = "STEADY.PEEK", [STEADY__RESET] = "STEADY.RESET"};
    if (call->group != NULL) return command_put_group_to_module(out, call);
    const struct steady__rate *rate = &call->terms->rate;
    const bool limit = call->verb != STEADY__RESET, consume = call->verb == STEADY__CONSUME;
    const bool drops = limit && rate->drops != 1, block = consume && rate->block != 0;
    const bool amount = consume && call->amount != 1;
    char *end = steady__resp_put(out, "*", 1);
    end = steady__resp_put_number(end, 2 + 2 * (limit + drops + block + amount));
    end = steady__resp_put(end, "\r\n", 2);
    end = steady__resp_put_bulk(end, names[call->verb], strlen(names[call->verb]));
    end = steady__resp_put_bulk(end, call->key, call->key_len);
    if (limit) end = steady__resp_put_integer(steady__resp_put_integer(end, rate->capacity), rate->recharge);
    if (drops) end = command_put_option(end, "DROPS", rate->drops);
    if (block) end = command_put_option(end, "BLOCK", rate->block);
    if (amount) end = command_put_option(end, "AMOUNT", call->amount);
    return (size_t)(end - out);
}

/* ---- Replies ---- */

/* lua/report.lua defines the values. */
bool steady__command_script_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                  steady_result *result, bool *stepped) {
    const struct steady__rate *rate = &call->terms->rate;
    struct steady__decision d = {0};
    int64_t level, phase, blocked_for = 0;
    if (count == 1) {
        d.success = values[0] >= 0;
        const int64_t content = d.success ? values[0] : -1 - values[0];
        if (content >= STEADY__EXACT) return false;
        level = content / rate->recharge + (content % rate->recharge != 0);
        phase = level * rate->recharge - content;
    } else if (count == 4) {
        d.success = values[0] & 1;
        d.stepped = values[0] & 2;
        level = values[1];
        phase = values[2];
        blocked_for = values[3];
        if (values[0] < 0 || values[0] > 3 || level < 0 || level > (STEADY__EXACT - 1) / rate->recharge ||
            phase <= -rate->drops || phase >= rate->recharge || blocked_for < 0 || blocked_for >= STEADY__EXACT)
            return false;
    } else {
        return false;
    }
    steady__bucket_report(&d, rate, level, phase, blocked_for, call->verb == STEADY__PEEK ? 1 : call->amount);
    *stepped = d.stepped;
    *result = (steady_result){.source = STEADY_FROM_STORE,
                              .success = d.success,
                              .level = d.level,
                              .until_next_drop = d.until_next_drop,
                              .blocked_for = d.blocked_for,
                              .retry_after = d.retry_after};
    return true;
}

/* The reply says whether there was a bucket. Now there is none. */
static bool command_reset_reply(const struct steady__call *call, int64_t existed, steady_result *result) {
    struct steady__decision d = {.success = true};
    steady__bucket_report(&d, &call->terms->rate, 0, 0, 0, 1);
    *result = (steady_result){
        .source = STEADY_FROM_STORE, .success = true, .until_next_drop = d.until_next_drop, .level = d.level};
    return existed == 0 || existed == 1;
}

/* success level until_next_drop blocked_for retry_after */
bool steady__command_module_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                  steady_result *result) {
    if (call->verb == STEADY__RESET) return count == 1 && command_reset_reply(call, values[0], result);
    if (count != 5 || (values[0] != 0 && values[0] != 1)) return false;
    for (size_t i = 1; i < count; i++)
        if (values[i] < (i == 4 ? -1 : 0) || values[i] >= STEADY__EXACT) return false;
    if (values[2] == 0 || (values[0] == 1) != (values[4] == 0)) return false;
    *result = (steady_result){.source = STEADY_FROM_STORE,
                              .success = values[0] == 1,
                              .level = values[1],
                              .until_next_drop = values[2],
                              .blocked_for = values[3],
                              .retry_after = values[4]};
    return true;
}

/* ---- Replies to calls on several keys ---- */

static bool command_is_exact(int64_t value) { return value >= 0 && value < STEADY__EXACT; }

/* Makes the bucket that a script describes with its level, phase and block. */
static bool command_read_bucket(const struct steady__rate *rate, int64_t now, const int64_t values[3],
                                struct steady__bucket *bucket) {
    const int64_t level = values[0], phase = values[1], blocked_for = values[2];
    if (level < 0 || level > (STEADY__EXACT - 1) / rate->recharge || phase <= -rate->drops || phase >= rate->recharge ||
        !command_is_exact(blocked_for) || now + blocked_for >= STEADY__EXACT)
        return false;
    *bucket = steady__bucket_at(rate, now, level, phase, blocked_for);
    return bucket->last >= 0;
}

/* The same if it says only: level * recharge - phase. */
static bool command_read_content(const struct steady__rate *rate, int64_t now, int64_t content,
                                 struct steady__bucket *bucket) {
    if (!command_is_exact(content)) return false;
    const int64_t level = content / rate->recharge + (content % rate->recharge != 0);
    return command_read_bucket(rate, now, (const int64_t[3]){level, level * rate->recharge - content, 0}, bucket);
}

/* The reply says how many buckets there were. Now there are none. */
static bool command_group_reset_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                      steady_result *result) {
    if (count != 1 || values[0] < 0 || values[0] > (int64_t)call->group->n) return false;
    steady__group_reset(call, result);
    return true;
}

/* lua/several.lua defines the values. The result follows from the buckets. The script has decided, too, and must have
 * come to the same verdict. */
bool steady__command_group_script_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                        steady_result *result, unsigned *stepped) {
    struct steady__bucket buckets[STEADY__PARTS_MAX];
    const struct steady__group *group = call->group;
    const size_t n = group->n;
    *stepped = 0;
    if (call->verb == STEADY__RESET_ALL) return command_group_reset_reply(call, values, count, result);
    const bool in_full = count == 2 + 3 * n;
    if (!in_full && count != 2 + n) return false;
    if (values[0] < 0 || values[0] > (in_full ? 1 + 2 * (int64_t)n : 1) || !command_is_exact(values[1])) return false;
    for (size_t i = 0; i < n; i++) {
        const struct steady__rate *rate = group->members[i].part.rate;
        if (in_full ? !command_read_bucket(rate, values[1], &values[2 + 3 * i], &buckets[i])
                    : !command_read_content(rate, values[1], values[2 + i], &buckets[i]))
            return false;
    }
    *stepped = (unsigned)(values[0] / 2);
    steady__group_decide(call, buckets, values[1], NULL, result);
    return result->success == (values[0] % 2 == 1);
}

static bool command_is_unanswered(const int64_t values[6]) {
    return (values[0] | values[1] | values[2] | values[3] | values[4] | values[5]) == 0;
}

/* success granted level until_next_drop blocked_for retry_after. All are 0: the bucket was not answered, because
 * another one denied the call. */
static bool command_read_part(struct steady__member *member, int64_t now, const int64_t values[6],
                              steady_part_result *result) {
    const int64_t amount = member->part.amount;
    if (command_is_unanswered(values)) return true;
    if ((values[0] != 0 && values[0] != 1) || (values[0] == 1) != (values[5] == 0)) return false;
    if (amount < 0 ? values[1] < amount || values[1] > 0 : values[1] < 0 || values[1] > amount) return false;
    for (size_t i = 2; i < 6; i++)
        if (values[i] < (i == 5 ? -1 : 0) || values[i] >= STEADY__EXACT) return false;
    if (values[3] == 0) return false;
    result->success = values[0] == 1;
    result->answered = true;
    result->granted = values[1];
    result->level = values[2];
    result->until_next_drop = values[3];
    result->blocked_for = values[4];
    result->retry_after = values[5];
    member->moment = now;
    return true;
}

/* Whether the buckets fit the verdict: an allowed call is denied by none, a denied one by the bucket that it names. */
static bool command_fits_verdict(const struct steady__group *group, const struct steady_result *result) {
    for (size_t i = 0; i < group->n; i++) {
        const bool denies = steady__group_votes(&group->members[i].part) && !group->results[i].success;
        if (!group->results[i].answered && (result->success || i == result->part)) return false;
        if (result->success ? denies : group->results[i].granted != 0) return false;
        if (!result->success && i == result->part && !denies) return false;
    }
    return result->success || result->retry_after == group->results[result->part].retry_after;
}

/* success part wait retry_after now, then those of each bucket. */
static bool command_group_consume_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                        steady_result *result) {
    struct steady__group *group = call->group;
    if (count != 5 + 6 * group->n || (values[0] != 0 && values[0] != 1)) return false;
    if (values[1] < 0 || values[1] >= (int64_t)group->n || values[2] < 0 || values[2] > group->how.max_wait)
        return false;
    if (values[3] < -1 || values[3] >= STEADY__EXACT || (values[0] == 1) != (values[3] == 0)) return false;
    if (!command_is_exact(values[4]) || (values[0] == 0 && values[2] != 0)) return false;
    for (size_t i = 0; i < group->n; i++)
        if (!command_read_part(&group->members[i], values[4], &values[5 + 6 * i], &group->results[i])) return false;
    *result = (steady_result){.source = STEADY_FROM_STORE,
                              .success = values[0] == 1,
                              .atomic = true,
                              .must_wait = values[2],
                              .retry_after = values[3]};
    steady__group_name(call, (size_t)values[1], result);
    return command_fits_verdict(group, result);
}

/* level until_next_drop blocked_for given_back charged */
static bool command_read_settled(struct steady__member *member, int64_t now, const int64_t values[5],
                                 steady_part_result *result) {
    const struct steady__settlement *s = &member->settlement;
    for (size_t i = 0; i < 5; i++)
        if (!command_is_exact(values[i])) return false;
    if (values[1] == 0 || values[4] > (s->actual > s->reserved ? s->actual - s->reserved : 0)) return false;
    if (values[3] != 0 && (s->actual >= s->reserved || !s->same_rate)) return false;
    result->success = result->answered = true;
    result->level = values[0];
    result->until_next_drop = values[1];
    result->blocked_for = values[2];
    result->given_back = values[3];
    result->charged = values[4];
    member->moment = now;
    return true;
}

/* now, then those of each bucket. */
static bool command_group_settle_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                       steady_result *result) {
    struct steady__group *group = call->group;
    if (count != 1 + 5 * group->n || !command_is_exact(values[0])) return false;
    for (size_t i = 0; i < group->n; i++)
        if (!command_read_settled(&group->members[i], values[0], &values[1 + 5 * i], &group->results[i])) return false;
    *result = (steady_result){.source = STEADY_FROM_STORE, .success = true, .atomic = true};
    steady__group_name(call, 0, result);
    return true;
}

bool steady__command_group_module_reply(const struct steady__call *call, const int64_t *values, size_t count,
                                        steady_result *result) {
    switch (call->verb) {
    case STEADY__RESET_ALL: return command_group_reset_reply(call, values, count, result);
    case STEADY__SETTLE: return command_group_settle_reply(call, values, count, result);
    default: return command_group_consume_reply(call, values, count, result);
    }
}
