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
