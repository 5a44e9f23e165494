/* The fast way of bin/llmpar-request, for the job that every job but the first of a GNU parallel is: hand the arguments to
 * the pool that is there, and print what comes back. It saves 1.1 to 1.3 ms of CPU a job. Whatever else there is to do (start a pool,
 * run without one, tell of a worker that died) is the script's: it is executed in this process's place with the same
 * arguments, and sees to it from the beginning. scripts/setup compiles this where there is a C compiler:
 *
 *   cc -O2 -static -DSCRIPT='"/…/bin/llmpar-request"' -o .venv/launcher/llmpar-request llmpar/pool/launcher.c
 *
 * The protocol is in llmpar/pool/protocol.py. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int pool = -1;
static volatile sig_atomic_t ended; /* exit status of the signal that came */

static void script(char **arguments) {
    arguments[0] = SCRIPT;
    execv(SCRIPT, arguments);
    fprintf(stderr, "llmpar-request: cannot run '" SCRIPT "': %s\n", strerror(errno));
    _exit(4);
}

/* The script's way without a pool, after this one was no help. */
static void cold(char **arguments, long lost) {
    char text[32];
    signal(SIGPIPE, SIG_DFL);
    if (lost >= 0) {
        snprintf(text, sizeof text, "%ld", lost);
        setenv("LLMPAR_LOST", text, 1);
    }
    setenv("LLMPAR_POOL", "no", 1);
    script(arguments);
}

/* A signal asks the worker to stop; its record still comes. The second signal ends this process. */
static void stop(int number) {
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    ended = 128 + number;
    shutdown(pool, SHUT_WR);
}

static int show(int to, const char *text, size_t left) {
    while (left) {
        ssize_t count = write(to, text, left);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return 0;
        text += count;
        left -= count;
    }
    return 1;
}

static int reach(const char *parallel) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct stat found;
    char folder[sizeof at.sun_path];
    const char *run = getenv("XDG_RUNTIME_DIR");
    int size = run && !stat(run, &found) && found.st_uid == getuid() && (found.st_mode & 0170022) == 0040000
        ? snprintf(folder, sizeof folder, "%s/llmpar", run) : snprintf(folder, sizeof folder, "/tmp/llmpar-%u", getuid());
    /* Only a folder that is ours alone is asked. A name too long for a socket is the script's to deal with. */
    if (size >= (int)sizeof folder || lstat(folder, &found) || found.st_uid != getuid() || (found.st_mode & 0170077) != 0040000) return 0;
    size = snprintf(at.sun_path, sizeof at.sun_path, "%s/%s.sock", folder, parallel);
    if (size >= (int)sizeof at.sun_path) return 0;
    pool = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct ucred peer;
    socklen_t length = sizeof peer;
    return pool >= 0 && !connect(pool, (void *)&at, sizeof at)
        && !getsockopt(pool, SOL_SOCKET, SO_PEERCRED, &peer, &length) && peer.uid == getuid();
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The launcher's message: length, then magic, start, directory, number of variables, variables, arguments, NUL between. */
static char *message(char **arguments, size_t *size) {
    extern char **environ;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    char directory[4096], *data;
    ssize_t length = readlink("/proc/self/cwd", directory, sizeof directory - 1);
    if (length < 0) return NULL;
    directory[length] = 0;
    size_t count = 0, all = 0;
    while (environ[all]) all++;
    char **kept = calloc(all + 1, sizeof *kept);
    FILE *out = open_memstream(&data, size);
    if (!kept || !out) return NULL;
    for (size_t i = 0; i < all; i++) if (!strncmp(environ[i], "LLMPAR_", 7)) kept[count++] = environ[i];
    qsort(kept, count, sizeof *kept, by_name);
    fwrite("\0\0\0\0", 1, 4, out);
    fprintf(out, "llmpar1%c%lld%09ld%c%s%c%zu", 0, (long long)now.tv_sec, now.tv_nsec, 0, directory, 0, count + 2);
    for (size_t i = 0; i < count; i++) fprintf(out, "%c%s", 0, kept[i]);
    const char *seq = getenv("PARALLEL_SEQ"), *slot = getenv("PARALLEL_JOBSLOT");
    fprintf(out, "%cPARALLEL_SEQ=%s%cPARALLEL_JOBSLOT=%s", 0, seq ? seq : "", 0, slot ? slot : "");
    for (char **argument = arguments + 1; *argument; argument++) fprintf(out, "%c%s", 0, *argument);
    if (fclose(out)) return NULL;
    uint32_t body = htonl(*size - 4);
    memcpy(data, &body, 4);
    return data;
}

int main(int count, char **arguments) {
    const char *parallel = getenv("PARALLEL_PID"), *without = getenv("LLMPAR_POOL");
    size_t size = 0, used = 0, space = 65536;
    char *asked, *data = malloc(space);
    long records = 0;
    (void)count;
    if (!parallel || !*parallel || parallel[strspn(parallel, "0123456789")] || (without && !strcmp(without, "no")) || !reach(parallel)
        || !data || !(asked = message(arguments, &size))) script(arguments);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    show(pool, asked, size);
    signal(SIGPIPE, SIG_DFL);
    for (;;) {
        ssize_t got = read(pool, data + used, space - used);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            if (ended) return ended;
            /* A reset: the pool went before a worker had read this; nothing was sent. Otherwise a worker died with the
             * request in hand, sent or not, and the record has to say so: of the one after those that came. */
            cold(arguments, got < 0 ? -1 : records);
        }
        used += got;
        size_t at = 0;
        for (uint32_t length; used - at >= 5; at += 5 + length) {
            memcpy(&length, data + at + 1, 4);
            length = ntohl(length);
            if (used - at - 5 < length) {
                if (space < 5 + (size_t)length + 65536 && !(data = realloc(data, space = 5 + (size_t)length + 65536))) return 1;
                break;
            }
            const char *part = data + at + 5;
            switch (data[at]) {
            case 'o':
                if (!show(STDOUT_FILENO, part, length)) {
                    fprintf(stderr, "llmpar-request: cannot write a record to standard output: %s\n", strerror(errno));
                    return 1;
                }
                records++;
                break;
            case 'e': show(STDERR_FILENO, part, length); break;
            case 'x': return ended ? ended : (unsigned char)part[0];
            case 'c': cold(arguments, -1);
            }
        }
        memmove(data, data + at, used -= at);
    }
}
