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
