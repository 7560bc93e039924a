/* Loaded before libc (LD_PRELOAD): counts the calls of this process that concern files under one folder, tells their
 * names, and makes one of them, or all from one on, fail, end the process, or cut the power of the disk. It also moves
 * the wall clock of this process. Nothing happens until it is armed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXT4_IOC_SHUTDOWN _IOR('X', 125, unsigned int)
#define WITHOUT_FLUSHING_THE_LOG 2

enum { KILL = -1, POWER = -2 };

static char folder[PATH_MAX];
static int armed, left, action, times, teller = -1, disk = -1;
static long long clock_ns;

/* `call_error` is an errno, KILL or POWER; `call_times` -1 is for ever. Before it, `skip` calls pass. */
void calls_arm(const char *path, int skip, int call_error, int call_times, int descriptor) {
    strncpy(folder, path, sizeof folder - 1);
    left = skip, action = call_error, times = call_times, teller = descriptor;
    if (action == POWER) disk = open(folder, O_RDONLY | O_DIRECTORY);
    armed = 1;
}

void calls_disarm(void) { armed = 0; }

void calls_move_clock(long long seconds) { clock_ns = seconds * 1000000000LL; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int lies_in_folder(const char *path) {
    size_t length = strlen(folder);
    return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

/* Whether the call must fail; errno says how. */
static int fails(const char *call, const char *path) {
    if (!armed || !lies_in_folder(path)) return 0;
    int counted = __atomic_fetch_sub(&left, 1, __ATOMIC_SEQ_CST);
    if (teller >= 0) {
        char line[PATH_MAX + 32];
        int length = snprintf(line, sizeof line, "%s %s\n", call, strrchr(path, '/') + 1);
        if (REAL(write)(teller, line, length) != length) _exit(9);
    }
    if (counted > 0 || (times >= 0 && counted <= -times)) return 0;
    if (action == POWER) {
        unsigned int how = WITHOUT_FLUSHING_THE_LOG;
        if (ioctl(disk, EXT4_IOC_SHUTDOWN, &how)) _exit(8);
    }
    if (action < 0) kill(getpid(), SIGKILL);
    errno = action;
    return 1;
}

static int fails_on(const char *call, int descriptor) {
    if (!armed) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(call, path);
}

#define ON_DESCRIPTOR(result, name, call, parameters, arguments) \
    result name parameters { return fails_on(call, descriptor) ? -1 : REAL(name) arguments; }

ON_DESCRIPTOR(ssize_t, read, "read", (int descriptor, void *data, size_t n), (descriptor, data, n))
ON_DESCRIPTOR(ssize_t, pread64, "read", (int descriptor, void *data, size_t n, off64_t o), (descriptor, data, n, o))
ON_DESCRIPTOR(ssize_t, readv, "read", (int descriptor, const struct iovec *v, int n), (descriptor, v, n))
ON_DESCRIPTOR(ssize_t, preadv64, "read", (int descriptor, const struct iovec *v, int n, off64_t o), (descriptor, v, n, o))
ON_DESCRIPTOR(ssize_t, preadv64v2, "read", (int descriptor, const struct iovec *v, int n, off64_t o, int f), (descriptor, v, n, o, f))
ON_DESCRIPTOR(ssize_t, write, "write", (int descriptor, const void *data, size_t n), (descriptor, data, n))
ON_DESCRIPTOR(ssize_t, pwrite64, "write", (int descriptor, const void *data, size_t n, off64_t o), (descriptor, data, n, o))
ON_DESCRIPTOR(ssize_t, writev, "write", (int descriptor, const struct iovec *v, int n), (descriptor, v, n))
ON_DESCRIPTOR(ssize_t, pwritev64, "write", (int descriptor, const struct iovec *v, int n, off64_t o), (descriptor, v, n, o))
ON_DESCRIPTOR(ssize_t, pwritev64v2, "write", (int descriptor, const struct iovec *v, int n, off64_t o, int f), (descriptor, v, n, o, f))
ON_DESCRIPTOR(int, ftruncate64, "truncate", (int descriptor, off64_t n), (descriptor, n))
ON_DESCRIPTOR(int, fallocate64, "allocate", (int descriptor, int mode, off64_t o, off64_t n), (descriptor, mode, o, n))
ON_DESCRIPTOR(int, fsync, "fsync", (int descriptor), (descriptor))
ON_DESCRIPTOR(int, fdatasync, "fsync", (int descriptor), (descriptor))

int posix_fallocate64(int descriptor, off64_t o, off64_t n) {
    return fails_on("allocate", descriptor) ? errno : REAL(posix_fallocate64)(descriptor, o, n);
}

int rename(const char *from, const char *to) { return fails("rename", to) ? -1 : REAL(rename)(from, to); }

int unlink(const char *path) { return fails("unlink", path) ? -1 : REAL(unlink)(path); }

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    return fails("open", path) ? -1 : REAL(open64)(path, flags, mode);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (!result && clock == CLOCK_REALTIME && clock_ns) {
        long long moved = now->tv_sec * 1000000000LL + now->tv_nsec + clock_ns;
        now->tv_sec = moved / 1000000000LL, now->tv_nsec = moved % 1000000000LL;
    }
    return result;
}
