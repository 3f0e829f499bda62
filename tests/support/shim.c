/* A PKCS#11 module in front of a real one: it passes every call on, and answers some of them otherwise.
 *
 * Beside the shared object lies a file with the same name and ".rules" after it, read again at each call. A line is:
 *
 *   module PATH                              the real module; needed
 *   log PATH                                 append the name of each function that is called
 *   say TEXT                                 print TEXT on standard output at each call, and leave most of it in stdio's
 *                                            buffer: it is written when C_Initialize is called, and when the program ends
 *   warn TEXT                                print TEXT on standard error when C_Initialize is called
 *   fail FUNCTION CODE [CONDITION]...        answer CODE in place of the real module
 *   slow FUNCTION MILLISECONDS [CONDITION]... wait before the call is passed on
 *   token FIELD VALUE [CONDITION]...         change what C_GetTokenInfo says
 *   pin GIVEN REAL [CONDITION]...            hand C_Login's PIN GIVEN over as REAL; any other one is refused
 *   attribute TYPE VALUE [CONDITION]...      change what C_GetAttributeValue says of an object; "none" hides it
 *
 * CONDITION is slot=ID, object=HEX (the CKA_LABEL of the object that the call is about), class=NUMBER (its CKA_CLASS),
 * with=TYPE (the template of a search holds such an attribute), mode=ro or mode=rw (of the session that is opened),
 * first=N or after=N (the first N matching calls, or all but those). FIELD is label, serial or model with VALUE in
 * hexadecimal digits, set or clear with VALUE a flag, shortest with VALUE the length of the shortest PIN, sessions with their number. PINs are in
 * hexadecimal digits, "-" (an empty one) or "none" (a pad).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef unsigned long ulong;
typedef struct { ulong type; void *value; ulong length; } attribute;
typedef ulong (*function)(ulong, ulong, ulong, ulong, ulong, ulong, ulong, ulong);
typedef struct { unsigned char version[2]; void *functions[68]; } list;
typedef struct {
    unsigned char label[32], manufacturer[32], model[16], serial[16];
    ulong flags, sessions[4], longest_pin, shortest_pin;
} token_info; /* the head of CK_TOKEN_INFO */

enum { OK = 0, GENERAL_ERROR = 5, TYPE_INVALID = 0x12, BUFFER_TOO_SMALL = 0x150 };
enum { CLASS = 0, LABEL = 3 };
enum { READ_WRITE = 2, PIN_INCORRECT = 0xA0 };
enum { UNAVAILABLE = -1 };
enum { LINES = 64, LONGEST = 4096, ATTRIBUTES = 64 };

static const char *names[68] = {
    "C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList", "C_GetSlotList", "C_GetSlotInfo",
    "C_GetTokenInfo", "C_GetMechanismList", "C_GetMechanismInfo", "C_InitToken", "C_InitPIN", "C_SetPIN",
    "C_OpenSession", "C_CloseSession", "C_CloseAllSessions", "C_GetSessionInfo", "C_GetOperationState",
    "C_SetOperationState", "C_Login", "C_Logout", "C_CreateObject", "C_CopyObject", "C_DestroyObject",
    "C_GetObjectSize", "C_GetAttributeValue", "C_SetAttributeValue", "C_FindObjectsInit", "C_FindObjects",
    "C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt", "C_EncryptUpdate", "C_EncryptFinal", "C_DecryptInit",
    "C_Decrypt", "C_DecryptUpdate", "C_DecryptFinal", "C_DigestInit", "C_Digest", "C_DigestUpdate", "C_DigestKey",
    "C_DigestFinal", "C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal", "C_SignRecoverInit", "C_SignRecover",
    "C_VerifyInit", "C_Verify", "C_VerifyUpdate", "C_VerifyFinal", "C_VerifyRecoverInit", "C_VerifyRecover",
    "C_DigestEncryptUpdate", "C_DecryptDigestUpdate", "C_SignEncryptUpdate", "C_DecryptVerifyUpdate",
    "C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey", "C_UnwrapKey", "C_DeriveKey", "C_SeedRandom",
    "C_GenerateRandom", "C_GetFunctionStatus", "C_CancelFunction", "C_WaitForSlotEvent",
};

static list shim, *real;
static ulong matched[LINES]; /* how often the conditions of each line held */

static FILE *rules(void) {
    static ino_t before;
    Dl_info here;
    struct stat now;
    char path[LONGEST];
    dladdr((void *)names, &here);
    snprintf(path, sizeof path, "%s.rules", here.dli_fname);
    FILE *file = fopen(path, "r");
    if (file && !fstat(fileno(file), &now) && now.st_ino != before) { /* other rules: their calls are counted anew */
        memset(matched, 0, sizeof matched);
        before = now.st_ino;
    }
    return file;
}

static function real_function(const char *name) {
    for (int at = 0; at < 68; at++)
        if (!strcmp(names[at], name)) return (function)real->functions[at];
    abort();
}

static ulong real_attribute(ulong session, ulong object, ulong type, void *value, ulong room) {
    attribute wanted = {type, value, room};
    ulong result = real_function("C_GetAttributeValue")(session, object, (ulong)&wanted, 1, 0, 0, 0, 0);
    return result == OK ? wanted.length : 0;
}

static int unhex(const char *text, unsigned char *out, int room) {
    unsigned byte;
    int length = 0;
    for (; length < room && sscanf(text + 2 * length, "%2x", &byte) == 1; length++) out[length] = byte;
    return length;
}

typedef struct { const char *name; ulong slot, session, object; const attribute *search; ulong count, flags; } call;

static int object_is(const call *made, ulong type, const void *value, ulong length) {
    unsigned char said[256];
    return made->object && real_attribute(made->session, made->object, type, said, sizeof said) == length
        && !memcmp(said, value, length);
}

static int holds(const call *made, const char *condition, ulong number) {
    const char *value = strchr(condition, '=') + 1;
    unsigned char bytes[256];
    ulong wanted = strtoul(value, NULL, 0);
    if (!strncmp(condition, "slot=", 5)) return made->slot == wanted;
    if (!strncmp(condition, "object=", 7)) return object_is(made, LABEL, bytes, unhex(value, bytes, sizeof bytes));
    if (!strncmp(condition, "class=", 6)) return object_is(made, CLASS, &wanted, sizeof wanted);
    if (!strncmp(condition, "mode=", 5)) return !(made->flags & READ_WRITE) == !strcmp(value, "ro");
    if (!strncmp(condition, "first=", 6)) return number < wanted;
    if (!strncmp(condition, "after=", 6)) return number >= wanted;
    for (ulong at = 0; at < made->count; at++)
        if (!strncmp(condition, "with=", 5) && made->search[at].type == wanted) return 1;
    return 0;
}

static int is_count(const char *condition) {
    return !strncmp(condition, "first=", 6) || !strncmp(condition, "after=", 6);
}

/* Split a line into words, and tell whether it is of that kind, about that function, and its conditions hold. */
static int applies(char *line, int number, const call *made, const char *kind, char *words[]) {
    int count = 0, named = !strcmp(kind, "fail") || !strcmp(kind, "slow");
    line[strcspn(line, "\n")] = 0;
    for (char *word = strtok(line, " "); word && count < 15; word = strtok(NULL, " ")) words[count++] = word;
    words[count] = NULL;
    if (!count || strcmp(words[0], kind) || (named && strcmp(words[1], made->name))) return 0;
    int conditions = strcmp(kind, "log") ? 3 : 2;
    for (int at = conditions; at < count; at++)
        if (!is_count(words[at]) && !holds(made, words[at], 0)) return 0;
    ulong times = matched[number]++;
    for (int at = conditions; at < count; at++)
        if (is_count(words[at]) && !holds(made, words[at], times)) return 0;
    return 1;
}

/* The real module has looked at the buffer for its own value, and may have found it too small. */
static void say(attribute *asked, ulong room, const unsigned char *value, ulong length, int alone, ulong *result) {
    if (asked->value && room < length) {
        asked->length = (ulong)UNAVAILABLE;
        *result = BUFFER_TOO_SMALL;
        return;
    }
    if (asked->value) memcpy(asked->value, value, length);
    asked->length = length;
    if (*result == TYPE_INVALID || (alone && *result == BUFFER_TOO_SMALL)) *result = OK;
}

static void change_attribute(char *words[], attribute *asked, const ulong *rooms, ulong count, ulong *result) {
    unsigned char value[LONGEST];
    int hide = !strcmp(words[2], "none"), length = hide ? 0 : unhex(words[2], value, sizeof value), alone = count == 1;
    for (; count; asked++, rooms++, count--) {
        if (asked->type != strtoul(words[1], NULL, 0)) continue;
        if (!hide) say(asked, *rooms, value, length, alone, result);
        else asked->length = (ulong)UNAVAILABLE, *result = TYPE_INVALID;
    }
}

static void change_token(char *words[], token_info *info) {
    ulong flag = strtoul(words[2], NULL, 0);
    if (!strcmp(words[1], "set")) info->flags |= flag;
    if (!strcmp(words[1], "clear")) info->flags &= ~flag;
    if (!strcmp(words[1], "shortest")) info->shortest_pin = flag;
    if (!strcmp(words[1], "sessions")) info->sessions[1] = flag;
    if (!strcmp(words[1], "label")) { memset(info->label, ' ', 32); unhex(words[2], info->label, 32); }
    if (!strcmp(words[1], "model")) { memset(info->model, ' ', 16); unhex(words[2], info->model, 16); }
    if (!strcmp(words[1], "serial")) { memset(info->serial, ' ', 16); unhex(words[2], info->serial, 16); }
}

/* Put the real PIN in the place of the one that the rule names; tell whether it was given. */
static int change_pin(char *words[], ulong *pin, ulong *length) {
    static unsigned char real_pin[256];
    unsigned char wanted[256];
    int none = !strcmp(words[1], "none"), size = unhex(words[1], wanted, sizeof wanted);
    if (none ? *pin != 0 : !*pin || *length != (ulong)size || memcmp((void *)*pin, wanted, size)) return 0;
    *length = unhex(words[2], real_pin, sizeof real_pin);
    *pin = (ulong)real_pin;
    return 1;
}

static void note(const char *path, const char *name) {
    FILE *log = fopen(path, "a");
    if (!log) return;
    fprintf(log, "%s\n", name);
    fclose(log);
}

static int about_slot(const char *name) {
    return !strcmp(name, "C_GetSlotInfo") || !strcmp(name, "C_GetTokenInfo") || !strcmp(name, "C_OpenSession")
        || !strcmp(name, "C_GetMechanismList") || !strcmp(name, "C_GetMechanismInfo");
}

/* Every argument of PKCS#11 is as wide as a register, and no function has more than eight of them: so one function
 * with eight serves all, and the real one passes over those that it doesn't have. */
static ulong answer(int place, ulong a, ulong b, ulong c, ulong d, ulong e, ulong f, ulong g, ulong h) {
    char line[LONGEST], *words[16];
    call made = {names[place], 0, a, 0, NULL, 0, b};
    ulong result = OK, rooms[ATTRIBUTES];
    int reads = !strcmp(made.name, "C_GetAttributeValue");
    int failed = 0, number = 0, tokens = !strcmp(made.name, "C_GetTokenInfo"), login = !strcmp(made.name, "C_Login");
    if (about_slot(made.name)) made.slot = a;
    if (!strcmp(made.name, "C_SignInit")) made.object = c;
    if (strstr("C_GetAttributeValue C_SetAttributeValue C_DestroyObject C_CopyObject", made.name)) made.object = b;
    if (!strcmp(made.name, "C_FindObjectsInit")) made.search = (attribute *)b, made.count = c;
    FILE *file = rules();
    for (; file && number < LINES && fgets(line, sizeof line, file); number++) {
        char copy[LONGEST];
        if (!strncmp(line, "say ", 4)) printf("%s %s", made.name, line + 4);
        if (!strncmp(line, "warn ", 5) && !strcmp(made.name, "C_Initialize")) fprintf(stderr, "%s", line + 5);
        if (!strncmp(line, "say ", 4) && !strcmp(made.name, "C_Initialize")) fflush(stdout);
        if (applies(strcpy(copy, line), number, &made, "log", words)) note(words[1], made.name);
        if (applies(strcpy(copy, line), number, &made, "slow", words)) usleep(1000 * atoi(words[2]));
        if (applies(strcpy(copy, line), number, &made, "fail", words)) failed = 1, result = strtoul(words[2], NULL, 0);
        if (login && applies(strcpy(copy, line), number, &made, "pin", words) && !change_pin(words, &c, &d))
            failed = 1, result = PIN_INCORRECT;
    }
    if (reads && d > ATTRIBUTES) abort();
    for (ulong at = 0; reads && at < d; at++) rooms[at] = ((attribute *)c)[at].length;
    if (!failed) result = ((function)real->functions[place])(a, b, c, d, e, f, g, h);
    if (file) rewind(file);
    for (number = 0; file && !failed && number < LINES && fgets(line, sizeof line, file); number++) {
        if (tokens && result == OK && applies(line, number, &made, "token", words))
            change_token(words, (token_info *)b);
        if (reads && applies(line, number, &made, "attribute", words))
            change_attribute(words, (attribute *)c, rooms, d, &result);
    }
    if (file) fclose(file);
    return result;
}

#define PASS(n) \
    static ulong pass_##n(ulong a, ulong b, ulong c, ulong d, ulong e, ulong f, ulong g, ulong h) { \
        return answer(n, a, b, c, d, e, f, g, h); \
    }
#define TENS(x, t) x(t##0) x(t##1) x(t##2) x(t##3) x(t##4) x(t##5) x(t##6) x(t##7) x(t##8) x(t##9)
#define EACH(x) TENS(x, ) TENS(x, 1) TENS(x, 2) TENS(x, 3) TENS(x, 4) TENS(x, 5) \
    x(60) x(61) x(62) x(63) x(64) x(65) x(66) x(67)
EACH(PASS)
#define PLACE(n) shim.functions[n] = (void *)pass_##n;

ulong C_GetFunctionList(list **out) {
    char line[LONGEST] = "";
    FILE *file = rules();
    while (file && strncmp(line, "module ", 7) && fgets(line, sizeof line, file)) {}
    if (file) fclose(file);
    line[strcspn(line, "\n")] = 0;
    void *library = strncmp(line, "module ", 7) ? NULL : dlopen(line + 7, RTLD_NOW | RTLD_LOCAL);
    ulong (*get)(list **) = library ? (ulong (*)(list **))dlsym(library, "C_GetFunctionList") : NULL;
    if (!get || get(&real) != OK) return GENERAL_ERROR;
    memcpy(shim.version, real->version, sizeof shim.version);
    EACH(PLACE)
    shim.functions[3] = (void *)C_GetFunctionList;
    *out = &shim;
    return OK;
}
