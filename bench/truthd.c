/* truthd: a streaming HTTP server that knows when. It answers every POST with a stream of completion events at a fixed
 * gap and logs, for each request, when the kernel received it and when it wrote each event. Single thread, epoll, one
 * timer heap, absolute deadlines: its own lateness is in the log.
 *
 *   truthd PORT LOG [-n EVENTS] [-g GAP_US] [-f FIRST_US] [-b BURST] [-c] [-s STALL_AT_US:STALL_US]
 *
 * -b: BURST tokens in one event. -c: a plain body that ends with the connection instead of chunks. -f: time to the first
 * event. -s: no event is written between these two times after the server's first request. Where it may, it runs under
 * SCHED_FIFO with its memory locked; that no client delays it needs a core of its own besides (taskset).
 * PORT 0 takes any; "PORT fifo" or "PORT normal" is printed, as it is scheduled. The log names a request by the first 40
 * bytes of its prompt, or of a chat's first content. A POST whose path holds "/chat/" is answered with chat chunks.
 * The log is kept in memory and written at the end (SIGTERM). A line: id, receipt of the request (ns, epoch), then for each event: due (ns), before write (ns), after write (ns).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_TIMESTAMPNS
#define SO_TIMESTAMPNS 35
#endif
#define MAX_FD 65536
#define IN 32768

typedef int64_t ns;
struct conn {
    int fd, used, sent, close_after, chat, slot; /* slot: place in the heap, -1 if none */
    ns received, due;
    ns *times;
    char id[48];
    char in[IN];
};

static struct conn *conns[MAX_FD];
static struct conn *heap[MAX_FD];
static int heaped, events = 64, burst = 1, plain, epfd, tfd;
static ns gap = 20000000, first_gap = -1, stall_at, stall_for, epoch;
static struct done { struct done *next; ns received; ns *times; int sent; char id[48]; } *done, **tail = &done;
static volatile sig_atomic_t stopping;

static ns now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (ns)t.tv_sec * 1000000000 + t.tv_nsec;
}
static void put(int i, struct conn *c) { heap[i] = c; c->slot = i; }
static void up(int i) {
    struct conn *c = heap[i];
    while (i && heap[(i - 1) / 2]->due > c->due) { put(i, heap[(i - 1) / 2]); i = (i - 1) / 2; }
    put(i, c);
}
static void down(int i) {
    struct conn *c = heap[i];
    for (;;) {
        int k = 2 * i + 1;
        if (k >= heaped) break;
        if (k + 1 < heaped && heap[k + 1]->due < heap[k]->due) k++;
        if (heap[k]->due >= c->due) break;
        put(i, heap[k]);
        i = k;
    }
    put(i, c);
}
static void enter(struct conn *c) { heap[heaped] = c; up(heaped++); }
static void leave(struct conn *c) {
    int i = c->slot;
    if (i < 0) return;
    c->slot = -1;
    struct conn *last = heap[--heaped];
    if (last == c) return;
    put(i, last);
    up(i);
    down(last->slot);
}
static void arm(void) {
    struct itimerspec t = {0};
    if (heaped) {
        t.it_value.tv_sec = heap[0]->due / 1000000000;
        t.it_value.tv_nsec = heap[0]->due % 1000000000;
    }
    timerfd_settime(tfd, TFD_TIMER_ABSTIME, &t, NULL);
}
static ns *times(void) { /* touched, so that no page is missing when it counts */
    ns *made = malloc(3 * events * sizeof(ns));
    if (!made) abort();
    memset(made, 1, 3 * events * sizeof(ns));
    return made;
}
static void finish(struct conn *c) {
    if (!c->received) return;
    struct done *d = calloc(1, sizeof *d);
    if (!d) abort();
    *d = (struct done){.received = c->received, .times = c->times, .sent = c->sent};
    memcpy(d->id, c->id, sizeof d->id);
    *tail = d;
    tail = &d->next;
    c->times = times();
    c->received = 0;
}
static void dump(FILE *out) {
    for (struct done *d = done; d; d = d->next) {
        fprintf(out, "%s\t%lld", d->id, (long long)d->received);
        for (int i = 0; i < 3 * d->sent; i++) fprintf(out, "\t%lld", (long long)d->times[i]);
        fputc('\n', out);
    }
}
static void drop(struct conn *c) {
    leave(c);
    finish(c);
    conns[c->fd] = NULL;
    close(c->fd);
    free(c->times);
    free(c);
}
static ns stalled(ns due) {
    if (stall_for && epoch && due >= epoch + stall_at && due < epoch + stall_at + stall_for)
        return epoch + stall_at + stall_for;
    return due;
}
/* Write event i; the last carries the finish reason, the usage and the end. */
static int emit(struct conn *c) {
    char data[8192], framed[8400], text[4096];
    int i = c->sent, last = i == events - 1, n = 0, size;
    for (int b = 0; b < burst; b++) n += snprintf(text + n, sizeof text - n, " tok%d", i * burst + b);
    size = snprintf(data, sizeof data,
                    "data: {\"id\":\"t\",\"object\":\"%s\",\"created\":1,\"model\":\"truth\",\"choices\":[{\"index\":0,"
                    "%s\"%s\"%s,\"logprobs\":null,\"finish_reason\":%s}],\"usage\":{\"prompt_tokens\":8,"
                    "\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n",
                    c->chat ? "chat.completion.chunk" : "text_completion", c->chat ? "\"delta\":{\"content\":" : "\"text\":",
                    text, c->chat ? "}" : "", last ? "\"length\"" : "null", 8 + (i + 1) * burst, (i + 1) * burst);
    if (last) size += snprintf(data + size, sizeof data - size, "data: [DONE]\n\n");
    int m = 0;
    if (i == 0)
        m = snprintf(framed, sizeof framed, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%s%s\r\n",
                     plain ? "" : "Transfer-Encoding: chunked\r\n", c->close_after || plain ? "Connection: close\r\n" : "");
    if (!plain) m += snprintf(framed + m, sizeof framed - m, "%x\r\n", size);
    memcpy(framed + m, data, size);
    m += size;
    if (!plain) m += snprintf(framed + m, sizeof framed - m, last ? "\r\n0\r\n\r\n" : "\r\n");
    c->times[3 * i] = c->due;
    c->times[3 * i + 1] = now();
    ssize_t wrote = write(c->fd, framed, m);
    c->times[3 * i + 2] = now();
    if (wrote != m) return -1;
    c->sent++;
    if (!last) { c->due = stalled(c->due + gap); return 0; }
    finish(c);
    c->sent = 0;
    return 1;
}
static void begin(struct conn *c, ns received) {
    char *body = strstr(c->in, "\r\n\r\n") + 4;
    char *prompt = strstr(body, "\"prompt\":"), *content = strstr(body, "\"content\":");
    char *id = prompt ? strchr(prompt + 9, '"') : content ? strchr(content + 10, '"') : NULL;
    int n = 0;
    if (id) id++;
    for (; id && n < 40 && id[n] && id[n] != '"' && id[n] != '\\'; n++) c->id[n] = id[n] == '\t' ? ' ' : id[n];
    c->id[n] = 0;
    c->received = received;
    c->chat = strstr(c->in, "/chat/") && strstr(c->in, "/chat/") < body;
    c->close_after = strcasestr(c->in, "connection: close") != NULL;
    c->sent = 0;
    if (!epoch) epoch = received;
    c->due = stalled(received + (first_gap >= 0 ? first_gap : gap));
    enter(c);
}
static void readable(struct conn *c) {
    char control[128];
    struct iovec v = {c->in + c->used, IN - 1 - c->used};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(c->fd, &m, 0);
    if (n <= 0) { if (n == 0 || errno != EAGAIN) drop(c); return; }
    ns at = now();
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(h), sizeof t);
            at = (ns)t.tv_sec * 1000000000 + t.tv_nsec;
        }
    c->used += n;
    c->in[c->used] = 0;
    char *end = strstr(c->in, "\r\n\r\n"), *length = strcasestr(c->in, "\r\ncontent-length:");
    if (!end) return;
    int size = length && length < end ? atoi(length + 17) : 0;
    if (c->used >= end + 4 - c->in + size && c->slot < 0) {
        if (!strncmp(c->in, "GET", 3)) { /* model lists and health, which other clients want to see */
            const char *body = "{\"object\":\"list\",\"data\":[{\"id\":\"truth\",\"object\":\"model\",\"created\":1,\"owned_by\":\"t\",\"max_model_len\":4096}]}";
            char answer[512];
            int k = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", (int)strlen(body), body);
            if (write(c->fd, answer, k) != k) { drop(c); return; }
        } else begin(c, at);
        c->used = 0;
    }
}
static void stop(int s) { (void)s; stopping = 1; }

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "truthd: usage: truthd PORT LOG [options]\n"); return 2; }
    int option;
    optind = 3;
    while ((option = getopt(argc, argv, "n:g:f:b:cs:")) != -1) switch (option) {
        case 'n': events = atoi(optarg); break;
        case 'g': gap = atoll(optarg) * 1000; break;
        case 'f': first_gap = atoll(optarg) * 1000; break;
        case 'b': burst = atoi(optarg); break;
        case 'c': plain = 1; break;
        case 's': stall_at = atoll(optarg) * 1000; stall_for = strchr(optarg, ':') ? atoll(strchr(optarg, ':') + 1) * 1000 : 0; break;
        default: return 2;
    }
    FILE *out = fopen(argv[2], "w");
    if (!out) { perror("truthd: log"); return 1; }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (void *)&a, sizeof a) || listen(listener, 4096)) { perror("truthd: listen"); return 1; }
    socklen_t len = sizeof a;
    getsockname(listener, (void *)&a, &len);
    struct sched_param priority = {.sched_priority = 1};
    int fifo = !sched_setscheduler(0, SCHED_FIFO, &priority) && !mlockall(MCL_CURRENT);
    printf("%d %s\n", ntohs(a.sin_port), fifo ? "fifo" : "normal");
    fflush(stdout);
    epfd = epoll_create1(EPOLL_CLOEXEC);
    tfd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epfd, EPOLL_CTL_ADD, listener, &e);
    e.data.fd = tfd;
    epoll_ctl(epfd, EPOLL_CTL_ADD, tfd, &e);
    while (!stopping) {
        struct epoll_event got[256];
        arm();
        int n = epoll_wait(epfd, got, 256, -1);
        while (heaped && heap[0]->due <= now()) { /* events first: they are what must be on time */
            struct conn *c = heap[0];
            int r = emit(c);
            if (r == 0) down(0);
            else { leave(c); if (r < 0 || c->close_after || plain) drop(c); }
        }
        for (int i = 0; i < n; i++) {
            int fd = got[i].data.fd;
            if (fd == tfd) { uint64_t x; if (read(tfd, &x, 8) < 0) {} }
            else if (fd == listener) {
                int new;
                while ((new = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                    if (new >= MAX_FD) { close(new); continue; }
                    struct conn *c = calloc(1, sizeof *c);
                    c->fd = new;
                    c->slot = -1;
                    c->times = times();
                    setsockopt(new, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
                    setsockopt(new, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    conns[new] = c;
                    e.events = EPOLLIN;
                    e.data.fd = new;
                    epoll_ctl(epfd, EPOLL_CTL_ADD, new, &e);
                }
            } else if (conns[fd]) readable(conns[fd]);
        }
    }
    for (int i = 0; i < MAX_FD; i++) if (conns[i]) finish(conns[i]);
    dump(out);
    return fclose(out) != 0;
}
