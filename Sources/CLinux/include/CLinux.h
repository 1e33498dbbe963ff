// What Swift cannot import of Linux, and nothing else: function-like macros, variadic calls, flexible array members,
// constants newer than the oldest headers we build with, and accesses to bytes that somebody else changes.
#ifndef MINGLE_CLINUX_H
#define MINGLE_CLINUX_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <linux/userfaultfd.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

// ---- glibc's own functions, which its headers declare only under _GNU_SOURCE ----
// That macro must stay out of this header: it changes fd_set and __rusage_who, and Swift's Glibc module, compiled without
// it, would then contradict this one.
extern const char *strerrordesc_np(int code);

// ---- ioctl: variadic, so Swift does not see it. Each returns the result, or -errno. ----
static inline int mingle_ioctl(int fd, unsigned long request, unsigned long argument) {
    int result = ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
}
static inline int mingle_ioctl_pointer(int fd, unsigned long request, void *argument) {
    int result = ioctl(fd, request, argument);
    return result < 0 ? -errno : result;
}

// ---- request numbers: _IO* are function-like macros ----
#define MINGLE_REQUEST(name) static const unsigned long MINGLE_##name = name
MINGLE_REQUEST(KVM_GET_API_VERSION);
MINGLE_REQUEST(KVM_CREATE_VM);
MINGLE_REQUEST(KVM_CHECK_EXTENSION);
MINGLE_REQUEST(KVM_GET_VCPU_MMAP_SIZE);
MINGLE_REQUEST(KVM_GET_SUPPORTED_CPUID);
MINGLE_REQUEST(KVM_GET_MSR_INDEX_LIST);
MINGLE_REQUEST(KVM_CREATE_VCPU);
MINGLE_REQUEST(KVM_GET_DIRTY_LOG);
MINGLE_REQUEST(KVM_CLEAR_DIRTY_LOG);
MINGLE_REQUEST(KVM_SET_USER_MEMORY_REGION);
MINGLE_REQUEST(KVM_SET_TSS_ADDR);
MINGLE_REQUEST(KVM_SET_IDENTITY_MAP_ADDR);
MINGLE_REQUEST(KVM_CREATE_IRQCHIP);
MINGLE_REQUEST(KVM_IRQ_LINE);
MINGLE_REQUEST(KVM_IRQFD);
MINGLE_REQUEST(KVM_IOEVENTFD);
MINGLE_REQUEST(KVM_CREATE_PIT2);
MINGLE_REQUEST(KVM_ENABLE_CAP);
MINGLE_REQUEST(KVM_RUN);
MINGLE_REQUEST(KVM_GET_REGS);
MINGLE_REQUEST(KVM_SET_REGS);
MINGLE_REQUEST(KVM_GET_SREGS);
MINGLE_REQUEST(KVM_SET_SREGS);
MINGLE_REQUEST(KVM_SET_FPU);
MINGLE_REQUEST(KVM_TRANSLATE);
MINGLE_REQUEST(KVM_GET_MSRS);
MINGLE_REQUEST(KVM_SET_MSRS);
MINGLE_REQUEST(KVM_SET_CPUID2);
MINGLE_REQUEST(KVM_GET_LAPIC);
MINGLE_REQUEST(KVM_SET_LAPIC);
MINGLE_REQUEST(KVM_SET_MP_STATE);
MINGLE_REQUEST(KVM_GET_MP_STATE);
MINGLE_REQUEST(KVM_GET_TSC_KHZ);
MINGLE_REQUEST(KVM_KVMCLOCK_CTRL);
MINGLE_REQUEST(KVM_GET_VCPU_EVENTS);
MINGLE_REQUEST(KVM_GET_IRQCHIP);
MINGLE_REQUEST(UFFDIO_API);
MINGLE_REQUEST(UFFDIO_REGISTER);
MINGLE_REQUEST(UFFDIO_UNREGISTER);
MINGLE_REQUEST(UFFDIO_WAKE);
MINGLE_REQUEST(UFFDIO_COPY);
MINGLE_REQUEST(UFFDIO_ZEROPAGE);
MINGLE_REQUEST(UFFDIO_WRITEPROTECT);

// ---- constants newer than Linux 6.1's headers ----
// include/uapi/linux/kvm.h of Linux 6.9
#ifndef KVM_CAP_MEMORY_FAULT_INFO
#define KVM_CAP_MEMORY_FAULT_INFO 232
#endif
#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT 39
#endif
// include/uapi/linux/kvm.h of Linux 5.14
#ifndef KVM_CAP_EXIT_ON_EMULATION_FAILURE
#define KVM_CAP_EXIT_ON_EMULATION_FAILURE 204
#endif
// include/uapi/linux/userfaultfd.h: _IO(USERFAULTFD_IOC, 0x00)
static const unsigned long MINGLE_USERFAULTFD_IOC_NEW = _IO(0xAA, 0x00);

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

// ---- flexible array members ----
// Both buffers come from calloc; the caller frees them.
#define MINGLE_CPUID_MAX 256
static inline struct kvm_cpuid2 *mingle_cpuid_create(void) {
    struct kvm_cpuid2 *table = calloc(1, sizeof *table + MINGLE_CPUID_MAX * sizeof table->entries[0]);
    if (table) table->nent = MINGLE_CPUID_MAX;
    return table;
}
static inline struct kvm_cpuid_entry2 *mingle_cpuid_entries(struct kvm_cpuid2 *table) { return table->entries; }
#define MINGLE_MSRS_MAX 64
static inline struct kvm_msrs *mingle_msrs_create(void) {
    struct kvm_msrs *list = calloc(1, sizeof *list + MINGLE_MSRS_MAX * sizeof list->entries[0]);
    return list;
}
static inline struct kvm_msr_entry *mingle_msrs_entries(struct kvm_msrs *list) { return list->entries; }

// ---- the page that KVM shares with us for each vCPU ----
/// immediate_exit is written by other threads while the kernel reads it.
static inline void mingle_run_set_immediate_exit(struct kvm_run *run, uint8_t value) {
    __atomic_store_n(&run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

// ---- variadic or missing system calls. Each returns the result, or -errno. ----
static inline int mingle_open(const char *path, int flags, mode_t mode) {
    int fd = open(path, flags | O_CLOEXEC, mode);
    return fd < 0 ? -errno : fd;
}
/// Standard streams that are closed become /dev/null: otherwise the next file opened would get their number, and what is meant for
/// people.
static inline void mingle_fill_standard_streams(void) {
    // Reading finds the end; writing to a standard output that is closed stays an error.
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 2 ? O_RDWR : O_RDONLY) < 0) _exit(125);
}
/// SIG_IGN is a cast.
static inline void mingle_ignore_signal(int number) { signal(number, SIG_IGN); }
static inline int mingle_fcntl(int fd, int command, int argument) {
    int result = fcntl(fd, command, argument);
    return result < 0 ? -errno : result;
}
/// glibc's fstat(3) is a call that takes a path as well, which a confined process may not make.
static inline int mingle_fstat(int fd, struct stat *status) { return (int)syscall(SYS_fstat, fd, status); }
static inline int mingle_memfd_create(const char *name, unsigned int flags) {
    int fd = (int)syscall(SYS_memfd_create, name, flags);
    return fd < 0 ? -errno : fd;
}
static inline int mingle_gettid(void) { return (int)syscall(SYS_gettid); }
static inline int mingle_tgkill(int process, int thread, int signal) {
    return syscall(SYS_tgkill, process, thread, signal) < 0 ? -errno : 0;
}
static inline int mingle_pidfd_open(int process) {
    int fd = (int)syscall(SYS_pidfd_open, process, 0);
    return fd < 0 ? -errno : fd;
}
static inline int mingle_pidfd_send_signal(int pidfd, int signal) {
    return syscall(SYS_pidfd_send_signal, pidfd, signal, (void *)0, 0) < 0 ? -errno : 0;
}
/// mremap is variadic. Moves a mapping's pages onto `to`, replacing what was there; `from` stays mapped, without them.
/// Returns 0, or -errno.
int mingle_mremap_onto(void *from, size_t size, void *to);
static inline int mingle_userfaultfd(int flags) {
    int fd = (int)syscall(SYS_userfaultfd, flags);
    return fd < 0 ? -errno : fd;
}
static inline int mingle_winsize(int fd, unsigned short *rows, unsigned short *columns) {
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) < 0) return -errno;
    *rows = size.ws_row;
    *columns = size.ws_col;
    return 0;
}
/// The first real-time signal: SIGRTMIN is a function call in glibc.
static inline int mingle_sigrtmin(void) { return SIGRTMIN; }
/// Installs an empty handler without SA_RESTART: KVM_RUN then ends with EINTR when the signal arrives.
int mingle_install_kick_handler(int signal);
/// Starts a thread with a name and a stack of `stackSize` bytes, all signals blocked but `kickSignal` (0: all blocked).
int mingle_thread_create(pthread_t *thread, const char *name, size_t stackSize, int kickSignal,
                         void *(*body)(void *), void *context);

// ---- the C library's heap: a compiler may drop an allocation that is only made to see whether it succeeds ----
/// Sets the heap up so that `reserve` bytes of address space are always left at its end, if they can be had, and nothing of it is
/// mapped piece by piece. Takes no memory.
void mingle_heap_keep(size_t reserve);
/// Whether `count` bytes can be allocated in a piece; the heap grows for that, but takes no memory.
int mingle_heap_has(size_t count);
/// Gives the host the memory of what is free in the heap, but for `kept` bytes at its end; address space up to `reserve` stays.
void mingle_heap_give_back(size_t reserve, size_t kept);
/// A limit of this process (getrlimit(2)): the soft one; UINT64_MAX when there is none.
uint64_t mingle_limit_of_address_space(void);
uint64_t mingle_limit_of_data(void);
/// Reads bytes of this process as another process's would be read: an error, no signal, where nothing can be read.
/// Returns 0, or -errno.
int mingle_read_own(const void *from, void *to, size_t count);

/// prctl is variadic: PR_SET_PDEATHSIG. Returns 0, or -errno.
static inline int mingle_die_with_parent(int signal) {
    return prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0) < 0 ? -errno : 0;
}

// ---- guest bytes: anybody may change them at any time, so each is read or written once, whole ----
static inline uint8_t mingle_load8(const void *p) { return __atomic_load_n((const uint8_t *)p, __ATOMIC_RELAXED); }
static inline uint16_t mingle_load16(const void *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED); }
static inline uint32_t mingle_load32(const void *p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED); }
static inline uint64_t mingle_load64(const void *p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED); }
static inline uint16_t mingle_load16_acquire(const void *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE); }
static inline void mingle_store16_release(void *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE); }
static inline void mingle_full_barrier(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void mingle_store8(void *p, uint8_t v) { __atomic_store_n((uint8_t *)p, v, __ATOMIC_RELAXED); }
static inline void mingle_store16(void *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELAXED); }
static inline void mingle_store32(void *p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELAXED); }
static inline void mingle_store64(void *p, uint64_t v) { __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELAXED); }
static inline void mingle_atomic_or64(void *p, uint64_t v) { __atomic_fetch_or((uint64_t *)p, v, __ATOMIC_SEQ_CST); }
static inline void mingle_atomic_add64(void *p, uint64_t v) { __atomic_fetch_add((uint64_t *)p, v, __ATOMIC_SEQ_CST); }
static inline uint64_t mingle_atomic_exchange64(void *p, uint64_t v) {
    return __atomic_exchange_n((uint64_t *)p, v, __ATOMIC_SEQ_CST);
}
/// Whether all 512 words of a page are `word`. The page may change meanwhile.
int mingle_page_is_uniform(const void *page, uint64_t word);
/// A checksum of a page, 16 bytes: two sums of multiplications by odd numbers, so that a changed word always changes both. Not for
/// what somebody made on purpose. An emulated processor does it a hundred times as fast as a hash of vector instructions.
void mingle_page_checksum(const void *page, uint8_t sum[16]);
/// epoll(7), whose `struct epoll_event` is packed and holds a pointer: a key of 64 bits with each descriptor, and what was found of it.
struct mingle_epoll_found {
    uint64_t key;
    uint32_t events;
};
int mingle_epoll(void);
int mingle_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t key);
int mingle_epoll_wait(int epoll, struct mingle_epoll_found *found, int count, int milliseconds);
/// A copy that the compiler may neither drop nor repeat.
void mingle_copy(void *to, const void *from, size_t count);

// ---- Unix sockets between VMMs and the frame broker (Socket.c): CMSG_* are function-like macros, struct ucred and
// SO_PEERPIDFD (Linux 6.5) are not in every header. Each returns the result, or -errno. ----
/// A packet socket (SOCK_SEQPACKET), close-on-exec and non-blocking, not bound.
int mingle_packet_socket(void);
/// Binds it to a path and listens; the file is made with the process's umask.
int mingle_packet_listen(int fd, const char *path, int backlog);
int mingle_packet_connect(int fd, const char *path);
int mingle_packet_accept(int fd);
/// Sends one packet, with a descriptor unless `passed` is negative.
long mingle_packet_send(int fd, const void *bytes, size_t count, int passed);
/// Receives one packet of at most `count` bytes; 0 when the peer is gone. `*passed` becomes the descriptor that came
/// with it, or -1. -EMSGSIZE when the packet was longer or carried more than one descriptor: it is dropped, and no
/// descriptor of it stays open.
long mingle_packet_receive(int fd, void *bytes, size_t count, int *passed);
/// Who sent a packet.
struct mingle_sender {
    /// Its number in our PID namespace; 0 when it has none there.
    int process;
    /// Its user in our user namespace; the overflow user (proc(5)) when it has no number there.
    unsigned int user;
    /// Its pidfd, close-on-exec; negative when the kernel gave none.
    int pidfd;
};
/// As mingle_packet_receive, of a socket that tells senders. The pidfd belongs to the caller.
long mingle_packet_receive_from(int fd, void *bytes, size_t count, int *passed, struct mingle_sender *sender);
/// Whether the kernel tells who sent a packet; sockets accepted from a listening one begin as that.
int mingle_packet_tell_sender(int fd, int on);
/// Two connected packet sockets, close-on-exec and non-blocking.
int mingle_packet_pair(int *first, int *second);
/// Listens at a socket that listens already: those who connect from now on find this process at its other end.
int mingle_packet_listen_again(int fd, int backlog);
/// What all pidfds of a process, and of no other as long as the system runs, have in common; 0 before Linux 6.9.
uint64_t mingle_pidfd_inode(int pidfd);
/// Who made the connection.
int mingle_peer_credentials(int fd, int *process, unsigned int *user);
/// A pidfd of the process that made the connection, close-on-exec; -ENOPROTOOPT before Linux 6.5.
int mingle_peer_pidfd(int fd);
/// The flag of posix_spawn that makes the child the leader of a session; declared only under _GNU_SOURCE.
static const short MINGLE_SPAWN_SETSID = 0x80;
/// posix_spawn_file_actions_addchdir_np(3): the working directory of the child; declared only under _GNU_SOURCE. 0, or an errno.
int mingle_spawn_directory(posix_spawn_file_actions_t *actions, const char *path);
/// fallocate(2) with FALLOC_FL_PUNCH_HOLE: frees the memory of a range, which reads as zero from then on.
int mingle_punch_hole(int fd, uint64_t offset, uint64_t length);
/// fallocate(2) with FALLOC_FL_KEEP_SIZE alone: the file has room for so many bytes, or it fails and nothing has changed.
int mingle_reserve(int fd, uint64_t length);
/// prctl(2) with one argument; variadic.
int mingle_prctl(int option, unsigned long argument);
/// The words of the command line as the kernel gave them, bytes and all; NULL beyond the last. Swift's own are made to be
/// UTF-8, and are read from /proc.
const char *mingle_argument(int index);
/// Random bytes from the kernel, all of them.
int mingle_random(void *bytes, size_t count);

// ---- what a process inherits of who started it (Surroundings.c): declared under _GNU_SOURCE only, or variadic. Each
// returns 0, or -errno. ----
/// The normal scheduling class and nice value 0.
int mingle_normal_scheduling(void);
/// The usual class of input and output.
int mingle_normal_io_priority(void);
/// Every processor that the process's cpuset has.
int mingle_use_all_processors(void);
/// Memory from wherever the kernel finds best.
int mingle_default_memory_policy(void);
/// Closes every descriptor from `first` on (close_range(2), Linux 5.9).
int mingle_close_from(int first);
/// A pipe, close-on-exec: `ends[0]` is read, `ends[1]` written.
int mingle_pipe(int ends[2]);
/// The magic number of the file system that holds `path` (statfs(2)), or -errno.
long mingle_filesystem_type(const char *path);

// ---- confinement (Confine.c): signal handlers, and system calls without a wrapper. Each returns 0 or what is said, or
// -errno. ----
/// How this process ends when a filter refuses a call: `ExitStatus.refusedCall` (docs/exit-codes.md).
#define MINGLE_REFUSED_STATUS 117
/// SIGSYS ends the process: the handler says which kind of thread asked for which system call. Async-signal-safe.
int mingle_catch_refusals(void);
/// What the calling thread is called then; the text must stay.
void mingle_name_thread_kind(const char *kind);
/// Whether the kernel filters system calls, and can tell of a refused one by a signal (seccomp(2), SECCOMP_RET_TRAP).
int mingle_can_filter(void);
/// Filters the calling thread's system calls from now on.
int mingle_filter_thread(const struct sock_filter *instructions, size_t count);
/// The version of Landlock's interface.
int mingle_landlock_version(void);
/// Gives up all capabilities of the calling thread. 0, or -errno.
int mingle_drop_capabilities(void);
/// A descriptor of a set of rules under which nothing is allowed, as far as that version can forbid it.
int mingle_landlock_nothing(int version);
/// The calling thread is under that set from now on.
int mingle_landlock_enter(int ruleset);
/// No core files.
int mingle_no_core(void);
/// Any system call, for tests of what is refused. In debug builds alone.
long mingle_raw_call(long number, long a, long b, long c, long d, long e, long f);

#endif
