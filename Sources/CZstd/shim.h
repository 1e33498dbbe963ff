// What Swift needs of zstd.
#include <zstd.h>
