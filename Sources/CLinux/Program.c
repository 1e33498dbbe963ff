#include "CLinux.h"

static int argument_count;
static char **arguments;

// glibc calls constructors with main's arguments.
__attribute__((constructor)) static void keep_arguments(int count, char **words) {
    argument_count = count;
    arguments = words;
}

const char *mingle_argument(int index) {
    return index >= 0 && index < argument_count ? arguments[index] : NULL;
}

// Before the start of the Swift runtime, which looks for its own path there, for backtraces alone, and would end with a
// riddle where there is no /proc. Our own check says what is missing.
__attribute__((constructor(101))) static void keep_runtime_alive(void) {
    char path[1];
    if (readlink("/proc/self/exe", path, sizeof path) < 0) setenv("SWIFT_ROOT", "/usr", 0);
}
