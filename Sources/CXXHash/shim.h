// What Swift needs of libxxhash.
#include <xxhash.h>
