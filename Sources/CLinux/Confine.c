// For REG_RSI.
#define _GNU_SOURCE 1
#include "CLinux.h"
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <ucontext.h>

// include/uapi/asm-generic/siginfo.h
#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1
#endif

// ---- a call that a filter refuses ----
// The handler runs on the thread that asked, at any place of its code: it uses nothing but memory that is there and two system
// calls that every filter allows.

static __thread const char *thread_kind = "unknown";

static char *put_text(char *at, const char *text) {
    while (*text) *at++ = *text++;
    return at;
}

static char *put_number(char *at, unsigned long number, unsigned base) {
    char digits[24];
    int count = 0;
    do {
        digits[count++] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number);
    while (count) *at++ = digits[--count];
    return at;
}

static void refused(int signal, siginfo_t *info, void *context) {
    (void)signal;
    const ucontext_t *registers = context;
    char line[256], *end = line;
    end = put_text(end, "mingle: error: confinement: a thread of kind ");
    end = put_text(end, thread_kind);
    if (info->si_code == SYS_SECCOMP) {
        end = put_text(end, " asked for system call ");
        end = put_number(end, (unsigned)info->si_syscall, 10);
        end = put_text(end, " (arguments 0x");
        end = put_number(end, (unsigned long)registers->uc_mcontext.gregs[REG_RDI], 16);
        end = put_text(end, ", 0x");
        end = put_number(end, (unsigned long)registers->uc_mcontext.gregs[REG_RSI], 16);
        end = put_text(end, ", 0x");
        end = put_number(end, (unsigned long)registers->uc_mcontext.gregs[REG_RDX], 16);
        end = put_text(end, "), which it never needs: the guest is ended (docs/confinement.md)\n");
    } else {
        end = put_text(end, " got SIGSYS from somebody: the guest is ended\n");
    }
    // Nobody may read it: then the status says it alone.
    ssize_t written = write(2, line, (size_t)(end - line));
    (void)written;
    syscall(SYS_exit_group, MINGLE_REFUSED_STATUS);
}

int mingle_catch_refusals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = refused;
    action.sa_flags = SA_SIGINFO;
    sigfillset(&action.sa_mask);
    return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

void mingle_name_thread_kind(const char *kind) { thread_kind = kind; }

int mingle_drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

int mingle_can_filter(void) {
    unsigned int action = SECCOMP_RET_TRAP;
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

int mingle_filter_thread(const struct sock_filter *instructions, size_t count) {
    struct sock_fprog program = {.len = (unsigned short)count, .filter = (struct sock_filter *)instructions};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}

// ---- Landlock ----

int mingle_landlock_version(void) {
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return version < 0 ? -errno : (int)version;
}

// include/uapi/linux/landlock.h of Linux 6.12
struct ruleset {
    uint64_t files, network, scoped;
};

int mingle_landlock_nothing(int version) {
    // Each version of the interface knows more rights: of files 13, then REFER (2), TRUNCATE (3), IOCTL_DEV (5).
    int rights = version >= 5 ? 16 : version >= 3 ? 15 : version >= 2 ? 14 : 13;
    struct ruleset set = {.files = (UINT64_C(1) << rights) - 1};
    // Binding and connecting of TCP (4); abstract Unix sockets of others (6). Signals are the system call filter's business: a
    // scope would keep threads, each of which enters by itself, from signalling each other.
    if (version >= 4) set.network = 3;
    if (version >= 6) set.scoped = 1;
    size_t size = version >= 6 ? 24 : version >= 4 ? 16 : 8;
    int fd = (int)syscall(SYS_landlock_create_ruleset, &set, size, 0);
    return fd < 0 ? -errno : fd;
}

int mingle_landlock_enter(int ruleset) { return syscall(SYS_landlock_restrict_self, ruleset, 0) < 0 ? -errno : 0; }

int mingle_no_core(void) {
    struct rlimit none = {0, 0};
    return setrlimit(RLIMIT_CORE, &none) < 0 ? -errno : 0;
}

#ifdef DEBUG
long mingle_raw_call(long number, long a, long b, long c, long d, long e, long f) {
    long result = syscall(number, a, b, c, d, e, f);
    return result < 0 ? -errno : result;
}
#endif
