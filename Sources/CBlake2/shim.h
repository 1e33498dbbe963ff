// What Swift needs of libb2.
#include <blake2.h>
