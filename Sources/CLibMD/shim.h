// What Swift needs of libmd.
#include <sha2.h>
