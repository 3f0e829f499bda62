/* Sends one request again and again over a Unix socket or to a port of this machine, and says how long answers took:
 * load ADDRESS CONNECTIONS SECONDS RATE METHOD TARGET [BODY], where ADDRESS is a path or a port, and RATE is requests a
 * second of all connections (0: each as soon as its last one is answered; else each at its time, and what waits for a
 * late one counts as late; -RATE: the same, but a thread that spins until then, and time counts from the sending, so
 * that neither the timer nor a cold client is in it). Prints: all requests, those counted, answers that aren't 2xx, requests a second, p50, p99 and the longest, in
 * microseconds. ######## in the body is another number each time. A thread a connection; the first tenth isn't counted. Built by benchmarks/proxy.py. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 4000000, LONGEST = 65536 };

static char request[LONGEST];
static size_t request_size;
static const char *address;
static double rate;
static int connections, spins;
static int64_t begin, counted_from, end;
static float *taken;
static uint32_t all, count, bad;

static int64_t now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static int opened(void)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_port = htons(atoi(address))};
    int is_local = address[0] == '/', it = socket(is_local ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    strncpy(local.sun_path, address, sizeof local.sun_path - 1);
    port.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(it, is_local ? (void *)&local : (void *)&port, is_local ? sizeof local : sizeof port) < 0) {
        perror(address);
        exit(1);
    }
    return it;
}

/* Returns the status, or 0 if the connection was closed. */
static int asked(int it)
{
    static __thread char answer[LONGEST], mine[LONGEST];
    static uint32_t numbers;
    memcpy(mine, request, request_size + 1);
    char *place = strstr(mine, "########"), digits[12];
    if (place != NULL) {
        snprintf(digits, sizeof digits, "%08u", __atomic_fetch_add(&numbers, 1, __ATOMIC_RELAXED) % 100000000);
        memcpy(place, digits, 8);
    }
    size_t size = 0, whole = SIZE_MAX;
    if (write(it, mine, request_size) != (ssize_t)request_size)
        return 0;
    while (size < whole) {
        ssize_t more = read(it, answer + size, sizeof answer - 1 - size);
        if (more <= 0)
            return 0;
        answer[size += more] = 0;
        char *body = whole == SIZE_MAX ? strstr(answer, "\r\n\r\n") : NULL;
        if (body != NULL) {
            char *length = strcasestr(answer, "\r\ncontent-length:");
            whole = body + 4 - answer + (length != NULL && length < body ? atoi(length + 17) : 0);
        }
    }
    return atoi(answer + 9);
}

static void *ask(void *number)
{
    int it = opened();
    int64_t step = rate > 0 ? (int64_t)(1e9 * connections / rate) : 0;
    int64_t due = begin + step * (intptr_t)number / connections;
    for (;;) {
        if (spins)
            while (now() < due)
                ;
        else if (step) {
            struct timespec at = {due / 1000000000, due % 1000000000};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
        }
        int64_t from = step && !spins ? due : now();
        if (from >= end)
            break;
        int status = asked(it);
        int64_t took = now() - from;
        __atomic_fetch_add(&all, 1, __ATOMIC_RELAXED);
        if (from >= counted_from) {
            uint32_t at = __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED);
            if (at < MOST)
                taken[at] = took / 1000.0f;
            if (status / 100 != 2)
                __atomic_fetch_add(&bad, 1, __ATOMIC_RELAXED);
        }
        if (status == 0) {
            close(it);
            it = opened();
        }
        due += step;
    }
    close(it);
    return NULL;
}

static int by_size(const void *one, const void *other)
{
    float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
    if (argc < 7)
        return 2;
    address = argv[1];
    connections = atoi(argv[2]);
    rate = atof(argv[4]);
    spins = rate < 0;
    rate = spins ? -rate : rate;
    const char *body = argc > 7 ? argv[7] : "";
    request_size = snprintf(request, sizeof request,
                            "%s %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: load\r\nAccept: application/json\r\n%s",
                            argv[5], argv[6], *body ? "Content-Type: application/json\r\n" : "");
    if (*body)
        request_size += snprintf(request + request_size, sizeof request - request_size, "Content-Length: %zu\r\n",
                                 strlen(body));
    request_size += snprintf(request + request_size, sizeof request - request_size, "\r\n%s", body);
    taken = malloc(MOST * sizeof *taken);
    pthread_t threads[connections];
    begin = now();
    end = begin + (int64_t)(atof(argv[3]) * 1e9);
    counted_from = begin + (end - begin) / 10;
    for (intptr_t number = 0; number < connections; number++)
        pthread_create(&threads[number], NULL, ask, (void *)number);
    for (int number = 0; number < connections; number++)
        pthread_join(threads[number], NULL);
    uint32_t kept = count < MOST ? count : MOST;
    if (kept == 0)
        return 1;
    qsort(taken, kept, sizeof *taken, by_size);
    printf("%u %u %u %.0f %.1f %.1f %.1f\n", all, count, bad, count / ((end - counted_from) / 1e9), taken[kept / 2],
           taken[(uint64_t)kept * 99 / 100], taken[kept - 1]);
    return 0;
}
