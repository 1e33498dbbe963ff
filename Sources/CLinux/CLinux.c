// For pthread_setname_np.
#define _GNU_SOURCE 1
#include "CLinux.h"

static void mingle_kick_handler(int signal) { (void)signal; }

int mingle_install_kick_handler(int signal) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = mingle_kick_handler;
    sigemptyset(&action.sa_mask);
    return sigaction(signal, &action, NULL) < 0 ? -errno : 0;
}

int mingle_thread_create(pthread_t *thread, const char *name, size_t stackSize, int kickSignal,
                         void *(*body)(void *), void *context) {
    pthread_attr_t attributes;
    sigset_t blocked, before;
    sigfillset(&blocked);
    // A call that a filter refuses has to be told; one that is blocked would end us without a word.
    sigdelset(&blocked, SIGSYS);
    if (kickSignal) sigdelset(&blocked, kickSignal);
    int error = pthread_attr_init(&attributes);
    if (error) return -error;
    error = pthread_attr_setstacksize(&attributes, stackSize);
    if (!error) {
        // The new thread inherits the mask, so no signal can reach it in between.
        pthread_sigmask(SIG_SETMASK, &blocked, &before);
        error = pthread_create(thread, &attributes, body, context);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (!error) pthread_setname_np(*thread, name);
    }
    pthread_attr_destroy(&attributes);
    return -error;
}

void mingle_copy(void *to, const void *from, size_t count) {
    memcpy(to, from, count);
    __asm__ volatile("" : : "r"(to), "r"(from) : "memory");
}

int mingle_page_is_uniform(const void *page, uint64_t word) {
    const uint64_t *words = page;
    // Most pages differ within the first words; the rest goes by blocks that the compiler can vectorise.
    for (int block = 0; block < 512; block += 16) {
        uint64_t difference = 0;
        for (int i = 0; i < 16; i++) difference |= words[block + i] ^ word;
        if (difference) return 0;
    }
    __asm__ volatile("" : : "r"(page) : "memory");
    return 1;
}

void mingle_page_checksum(const void *page, uint8_t sum[16]) {
    const uint64_t *words = page;
    uint64_t first = 0x9E3779B97F4A7C15, second = 0xC2B2AE3D27D4EB4F;
    for (int i = 0; i < 512; i++) {
        first = (first ^ words[i]) * 0xBF58476D1CE4E5B9;
        first = first << 23 | first >> 41;
        second = (second + words[i]) * 0x94D049BB133111EB;
        second ^= second >> 29;
    }
    first = (first ^ first >> 32) * 0xD6E8FEB86659FD93;
    second = (second ^ second >> 32) * 0xFF51AFD7ED558CCD;
    memcpy(sum, &first, 8);
    memcpy(sum + 8, &second, 8);
}

// include/uapi/linux/mman.h; for mappings of files since Linux 5.13.
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

int mingle_mremap_onto(void *from, size_t size, void *to) {
    void *result = mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to);
    return result == MAP_FAILED ? -errno : 0;
}

void mingle_heap_keep(size_t reserve) {
    // One arena: one for each thread would cost more than this program's heap. No mappings: those of a heap that grows by brk
    // are one, whatever else the process has mapped. What is free beyond the reserve goes back to the host.
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TOP_PAD, (int)reserve);
    mallopt(M_TRIM_THRESHOLD, (int)(reserve + reserve / 4));
    (void)mingle_heap_has(reserve);
    // A reserve this long would otherwise be made of huge pages where the host gives them to everybody: 2 MiB for a few bytes.
    const uintptr_t page = 4096;
    uintptr_t end = (uintptr_t)sbrk(0), start = (end - mallinfo2().arena + page - 1) & ~(page - 1);
    if (start < end) madvise((void *)start, (end - start) & ~(page - 1), MADV_NOHUGEPAGE);
}

int mingle_heap_has(size_t count) {
    // All of it is free for whoever comes: the end of the heap.
    if (mallinfo2().keepcost > count + 64) return 1;
    void *volatile piece = malloc(count);
    int has = piece != NULL;
    free(piece);
    return has;
}

void mingle_heap_give_back(size_t reserve, size_t kept) {
    const size_t page = 4096;
    malloc_trim(reserve);
    size_t end = mallinfo2().keepcost;
    if (end < kept + 2 * page) return;
    // Taken for a moment, so that nobody else gets it while its memory goes; others find `kept` bytes meanwhile.
    size_t count = end - kept;
    char *volatile piece = malloc(count);
    if (!piece) return;
    uintptr_t first = ((uintptr_t)piece + page - 1) & ~(page - 1), last = ((uintptr_t)piece + count) & ~(page - 1);
    if (first < last) madvise((void *)first, last - first, MADV_DONTNEED);
    free(piece);
}

static uint64_t mingle_limit(int resource) {
    struct rlimit limit;
    if (getrlimit(resource, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return limit.rlim_cur;
}
uint64_t mingle_limit_of_address_space(void) { return mingle_limit(RLIMIT_AS); }
uint64_t mingle_limit_of_data(void) { return mingle_limit(RLIMIT_DATA); }

int mingle_read_own(const void *from, void *to, size_t count) {
    struct iovec local = {to, count}, remote = {(void *)from, count};
    ssize_t done = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    if (done < 0) return -errno;
    return (size_t)done == count ? 0 : -EFAULT;
}

int mingle_epoll(void) { return epoll_create1(EPOLL_CLOEXEC); }

int mingle_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t key) {
    struct epoll_event event = {.events = events, .data.u64 = key};
    return epoll_ctl(epoll, operation, fd, &event);
}

int mingle_epoll_wait(int epoll, struct mingle_epoll_found *found, int count, int milliseconds) {
    enum { BATCH = 32 };
    struct epoll_event events[BATCH];
    int result = epoll_wait(epoll, events, count < BATCH ? count : BATCH, milliseconds);
    for (int i = 0; i < result; i++) {
        found[i].key = events[i].data.u64;
        found[i].events = events[i].events;
    }
    return result;
}
