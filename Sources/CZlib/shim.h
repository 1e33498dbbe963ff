// What Swift needs of z.
#include <zlib.h>
