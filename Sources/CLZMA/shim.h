// What Swift needs of lzma.
#include <lzma.h>
