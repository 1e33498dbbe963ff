/* What Swift cannot say: ports, plain loads and stores at guest-physical addresses, the time-stamp counter.
 *
 * Memory is identity-mapped, so an address is a number here, never a pointer: a payload names pages that no
 * Swift object lives in. Every access is volatile and of exactly the width that its name says, since what it
 * meets may be a device, a page that the host replaces meanwhile, or a word that another vCPU writes.
 */
#ifndef MINGLE_PAYLOAD_MACHINE_H
#define MINGLE_PAYLOAD_MACHINE_H

#include <stdint.h>

#define MACHINE_INLINE static inline __attribute__((always_inline))

#define MACHINE_PORT(bits, suffix)                                                                       \
    MACHINE_INLINE uint##bits##_t machine_in##bits(uint16_t port) {                                     \
        uint##bits##_t value;                                                                            \
        __asm__ volatile("in" suffix " %1, %0" : "=a"(value) : "d"(port) : "memory");                   \
        return value;                                                                                    \
    }                                                                                                    \
    MACHINE_INLINE void machine_out##bits(uint16_t port, uint##bits##_t value) {                        \
        __asm__ volatile("out" suffix " %0, %1" : : "a"(value), "d"(port) : "memory");                  \
    }

MACHINE_PORT(8, "b")
MACHINE_PORT(16, "w")
MACHINE_PORT(32, "l")

/* Plain `mov`s, spelled out: what an emulator of device accesses surely knows, and a compiler cannot fold. */
#define MACHINE_ACCESS(bits, suffix, constraint)                                                         \
    MACHINE_INLINE uint##bits##_t machine_load##bits(uint64_t address) {                                \
        return *(const volatile uint##bits##_t *)address;                                                \
    }                                                                                                    \
    MACHINE_INLINE void machine_store##bits(uint64_t address, uint##bits##_t value) {                   \
        *(volatile uint##bits##_t *)address = value;                                                     \
    }                                                                                                    \
    MACHINE_INLINE uint##bits##_t machine_device_load##bits(uint64_t address) {                         \
        uint##bits##_t value;                                                                            \
        __asm__ volatile("mov" suffix " (%1), %0" : constraint(value) : "r"(address) : "memory");       \
        return value;                                                                                    \
    }                                                                                                    \
    MACHINE_INLINE void machine_device_store##bits(uint64_t address, uint##bits##_t value) {            \
        __asm__ volatile("mov" suffix " %0, (%1)" : : "r"(value), "r"(address) : "memory");             \
    }

MACHINE_ACCESS(8, "b", "=q")
MACHINE_ACCESS(16, "w", "=r")
MACHINE_ACCESS(32, "l", "=r")
MACHINE_ACCESS(64, "q", "=r")

/* The time-stamp counter, after everything before it has completed and before anything after it starts. */
MACHINE_INLINE uint64_t machine_ordered_tsc(void) {
    uint32_t low, high;
    __asm__ volatile("mfence\n\tlfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

MACHINE_INLINE void machine_pause(void) { __asm__ volatile("pause" : : : "memory"); }

/* A privileged instruction: in ring 3 an exception, hence a triple fault. */
MACHINE_INLINE void machine_halt(void) { __asm__ volatile("hlt" : : : "memory"); }

/* An x87 load. The processor can do it everywhere; KVM's instruction emulator cannot do it on a device. */
MACHINE_INLINE void machine_x87_load(uint64_t address) {
    __asm__ volatile("fldl (%0)\n\tfstp %%st(0)" : : "r"(address) : "memory", "st");
}

/* 256 bytes for the serial line being typed; only the leading vCPU touches them (start.S). */
extern uint8_t machine_line_buffer[256];
MACHINE_INLINE uint64_t machine_line_buffer_address(void) { return (uint64_t)machine_line_buffer; }

#endif
