// What Swift needs of lz4.
#include <lz4.h>
#include <lz4frame.h>
