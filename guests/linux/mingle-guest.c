// mingle-guest: the few things that the guest's init cannot do with busybox. A static program without a C library,
// because each kilobyte and each page fault of it is paid at every boot. README.md lists the subcommands.
#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <asm/unistd.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/input.h>
#include <linux/mman.h>
#include <linux/poll.h>
#include <stddef.h>
#include <stdint.h>

enum { exitPort = 0xD00, doorbellPort = 0xD04, ready = 1, inputReady = 2, maxInputDevices = 32, orderBytes = 4096, pathBytes = 4096 };

/// Matches `struct winsize`, which the kernel's headers declare beside a second `struct termios`.
struct window_size {
    unsigned short rows, columns, width, height;
};

// ---- system calls: the result, or -errno ----
static long call6(long number, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
static long call3(long number, long a, long b, long c) { return call6(number, a, b, c, 0, 0, 0); }

static _Noreturn void quit(int status) {
    for (;;) call3(__NR_exit_group, status, 0, 0);
}

// ---- strings ----
// The compiler may turn loops into these calls.
void *memset(void *to, int byte, size_t count) {
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(byte) : "memory");
    return start;
}
void *memcpy(void *to, const void *from, size_t count) {
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    return start;
}
static size_t length(const char *text) {
    size_t count = 0;
    while (text[count]) count++;
    return count;
}
static int equal(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}
static void say(const char *text) { call3(__NR_write, 2, (long)text, (long)length(text)); }
static _Noreturn void fail(const char *what, int status) {
    say("mingle-guest: ");
    say(what);
    say("\n");
    quit(status);
}

/// Reads a decimal or 0x number and moves on behind it; 0 if there is no digit or it exceeds 32 bits.
static int number(const char **text, uint32_t *value) {
    const char *at = *text;
    uint64_t sum = 0;
    unsigned base = 10;
    if (at[0] == '0' && (at[1] == 'x' || at[1] == 'X')) base = 16, at += 2;
    const char *start = at;
    for (;; at++) {
        unsigned digit = (unsigned char)*at, letter = digit | 0x20;
        if (digit >= '0' && digit <= '9') digit -= '0';
        else if (base == 16 && letter >= 'a' && letter <= 'f') digit = letter - 'a' + 10;
        else break;
        sum = sum * base + digit;
        if (sum > UINT32_MAX) return 0;
    }
    *text = at;
    *value = (uint32_t)sum;
    return at != start;
}
static uint32_t argument(const char *text) {
    uint32_t value;
    if (!text || !number(&text, &value) || *text) fail("a number is missing or malformed", 2);
    return value;
}

// ---- out PORT WIDTH VALUE, exit STATUS ----
static void out(uint32_t port, uint32_t width, uint32_t value) {
    if (port > 0xFFFF) fail("ports end at 0xffff", 2);
    if (width != 8 && width != 16 && width != 32) fail("the width is 8, 16 or 32", 2);
    if (call3(__NR_iopl, 3, 0, 0) < 0) fail("iopl is refused: ports need root", 1);
    if (width == 8) __asm__ volatile("outb %b0, %w1" : : "a"(value), "d"(port));
    else if (width == 16) __asm__ volatile("outw %w0, %w1" : : "a"(value), "d"(port));
    else __asm__ volatile("outl %0, %w1" : : "a"(value), "d"(port));
}

/// The exit port stops the machine at once, so what was printed has to have left the serial line before.
static void exitGuest(uint32_t status) {
    call3(__NR_ioctl, 1, TCSBRK, 1);
    out(exitPort, 8, status & 0xFF);
}

// ---- begin: is the RAM disk all there? ----
static void *pages(size_t bytes, int fd) {
    long flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE;
    long at = call6(__NR_mmap, 0, (long)bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (at < 0 && at > -4096) fail("not enough memory for the command", 126);
    return (void *)at;
}
static int begins(const char *at, const char *end, const char *word) {
    while (*word && at < end && *at == *word) at++, word++;
    return !*word;
}
/// Says what the kernel said of an initial RAM disk that it could not unpack.
/// - Returns: whether it did.
static int complainOfRAMDisk(void) {
    static const char *const words[] = {"Initramfs unpacking failed", "rootfs image is not initramfs"};
    long size = call3(__NR_syslog, 10 /* SYSLOG_ACTION_SIZE_BUFFER */, 0, 0);
    if (size <= 0) return 0;
    char *log = pages((size_t)size, -1), *end;
    long got = call3(__NR_syslog, 3 /* SYSLOG_ACTION_READ_ALL */, (long)log, size);
    int found = 0;
    end = log + (got > 0 ? got : 0);
    for (char *line = log, *next; line < end; line = next) {
        int matches = 0;
        for (next = line; next < end && *next != '\n'; next++)
            for (size_t at = 0; at < sizeof words / sizeof *words; at++) matches |= begins(next, end, words[at]);
        next += next < end;
        if (!matches) continue;
        found = 1;
        say("mingle-guest: the kernel says of the initial RAM disk: ");
        call3(__NR_write, 2, (long)line, next - line);
    }
    call3(__NR_munmap, (long)log, size, 0);
    return found;
}
static int exists(const char *path) {
    long fd = call3(__NR_open, (long)path, O_RDONLY | O_CLOEXEC, 0);
    if (fd >= 0) call3(__NR_close, fd, 0, 0);
    return fd >= 0;
}
/// Whether a word stands on the kernel's command line.
static int isAsked(const char *word) {
    static char line[4096];
    long fd = call3(__NR_open, (long)"/proc/cmdline", O_RDONLY | O_CLOEXEC, 0);
    long got = fd < 0 ? fd : call3(__NR_read, fd, (long)line, sizeof line);
    if (fd >= 0) call3(__NR_close, fd, 0, 0);
    const char *end = line + (got > 0 ? got : 0);
    for (const char *at = line; at < end; at++) {
        if ((at != line && at[-1] != ' ') || !begins(at, end, word)) continue;
        const char *after = at + length(word);
        if (after == end || *after == ' ' || *after == '\n') return 1;
    }
    return 0;
}
/// Fails if the RAM disk is not all there: nobody asked for a guest with half of it.
static void checkRAMDisk(void) {
    int isBroken = complainOfRAMDisk();
    if (isAsked("mingle.command") && !exists("/mingle/command"))
        fail("the command that was to be run is missing in the unpacked RAM disk", 1);
    if (isBroken) quit(1);
}

// ---- begin ----
static const struct {
    const char *path, *type, *options;
} mounts[] = {
    // In this order: the last two lie within /dev.
    {"/proc", "proc", ""},
    {"/sys", "sysfs", ""},
    {"/dev", "devtmpfs", ""},
    {"/tmp", "tmpfs", "mode=1777"},
    {"/run", "tmpfs", "mode=755"},
    {"/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666"},
    {"/dev/shm", "tmpfs", "mode=1777"},
};
static void mountAll(void) {
    for (size_t at = 0; at < sizeof mounts / sizeof *mounts; at++) {
        const char *path = mounts[at].path, *type = mounts[at].type;
        call3(__NR_mkdir, (long)path, 0755, 0);
        long result = call6(__NR_mount, (long)type, (long)path, (long)type, 0, (long)mounts[at].options, 0);
        if (result >= 0 || result == -EBUSY) continue;
        say("mingle-guest: not mounted: ");
        say(path);
        say("\n");
    }
}
/// devtmpfs has the devices alone; programs expect these as well.
static void linkStandardStreams(void) {
    static const char *const links[][2] = {
        {"/proc/self/fd", "/dev/fd"},
        {"fd/0", "/dev/stdin"},
        {"fd/1", "/dev/stdout"},
        {"fd/2", "/dev/stderr"},
    };
    for (size_t at = 0; at < sizeof links / sizeof *links; at++)
        call3(__NR_symlink, (long)links[at][0], (long)links[at][1], 0);
}
/// Mounts what every guest has, says when that was, and tells the host: three steps of init in one process.
static void begin(void) {
    static const char before[] = "mingle: init after ", after[] = " s\n";
    char uptime[32], line[sizeof before + sizeof uptime + sizeof after];
    mountAll();
    linkStandardStreams();
    long fd = call3(__NR_open, (long)"/proc/uptime", O_RDONLY | O_CLOEXEC, 0);
    long got = fd < 0 ? fd : call3(__NR_read, fd, (long)uptime, sizeof uptime);
    size_t digits = 0, end = sizeof before - 1;
    while ((long)digits < got && uptime[digits] != ' ') digits++;
    memcpy(line, before, end);
    memcpy(line + end, uptime, digits);
    memcpy(line + end + digits, after, sizeof after - 1);
    call3(__NR_write, 1, (long)line, (long)(end + digits + sizeof after - 1));
    out(doorbellPort, 32, ready);
    checkRAMDisk();
}

// ---- power-button ----
static int openInputDevices(struct pollfd *devices) {
    char path[] = "/dev/input/event00";
    int count = 0;
    for (int index = 0; index < maxInputDevices; index++) {
        char *digits = path + sizeof path - 3;
        if (index < 10) digits[0] = (char)('0' + index), digits[1] = 0;
        else digits[0] = (char)('0' + index / 10), digits[1] = (char)('0' + index % 10);
        long fd = call3(__NR_open, (long)path, O_RDONLY | O_CLOEXEC, 0);
        if (fd < 0) continue;
        devices[count].fd = (int)fd;
        devices[count++].events = POLLIN;
    }
    return count;
}
static void waitForPowerButton(void) {
    struct pollfd devices[maxInputDevices] = {0};
    int count = openInputDevices(devices);
    while (count > 0) {
        long ready = call3(__NR_poll, (long)devices, count, -1);
        if (ready < 0 && ready != -EINTR) fail("cannot wait for input events", 1);
        for (int index = 0; ready > 0 && index < count; index++) {
            struct input_event event;
            if (!devices[index].revents) continue;
            long got = call3(__NR_read, devices[index].fd, (long)&event, sizeof event);
            if (got == (long)sizeof event && event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
                quit(0);
            if (got <= 0 && got != -EINTR) devices[index--] = devices[--count];
        }
    }
    fail("no input device", 1);
}

// ---- modules DIRECTORY ----
static void loadModule(long directory, const char *name) {
    long fd = call3(__NR_openat, directory, (long)name, O_RDONLY | O_CLOEXEC);
    long result = fd < 0 ? fd : call3(__NR_finit_module, fd, (long)"", 0);
    if (fd >= 0) call3(__NR_close, fd, 0, 0);
    if (result >= 0 || result == -EEXIST) return;
    say("mingle-guest: module not loaded: ");
    say(name);
    say("\n");
}
/// Loads what DIRECTORY/order names, a file name a line. A module that fails is reported and does not stop the rest.
static void loadModules(const char *path) {
    static char text[orderBytes];
    if (!path) fail("usage: modules DIRECTORY", 2);
    long directory = call3(__NR_open, (long)path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    long fd = directory < 0 ? directory : call3(__NR_openat, directory, (long)"order", O_RDONLY | O_CLOEXEC);
    long got = fd < 0 ? fd : call3(__NR_read, fd, (long)text, sizeof text - 1);
    if (got < 0) fail("no list of modules", 1);
    char *name = text;
    for (char *at = text; at < text + got; at++) {
        if (*at != '\n') continue;
        *at = 0;
        if (*name) loadModule(directory, name);
        name = at + 1;
    }
}

// ---- run DIRECTORY TTY ----
/// A file of NUL-terminated words, and room for pointers to them; `bytes` is 0 if the file is empty or missing.
struct words {
    char *text;
    size_t bytes, count;
};
static struct words readWords(long directory, const char *name) {
    struct words words = {0};
    long fd = call3(__NR_openat, directory, (long)name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return words;
    long size = call3(__NR_lseek, fd, 0, 2 /* SEEK_END */);
    if (size > 0) {
        words.text = pages((size_t)size, (int)fd);
        words.bytes = (size_t)size;
        if (words.text[size - 1]) fail("a word of the command has no end", 126);
        for (long at = 0; at < size; at++) words.count += !words.text[at];
    }
    call3(__NR_close, fd, 0, 0);
    return words;
}
static char **collect(struct words words, char **to) {
    for (size_t at = 0; at < words.bytes; at += length(words.text + at) + 1) *to++ = words.text + at;
    return to;
}
static int sameName(const char *a, const char *b) {
    while (*a == *b && *a && *a != '=') a++, b++;
    return *a == *b && *a == '=';
}
/// The command's variables, then those of init that the command does not set itself.
static char **environment(struct words own, char **inherited) {
    size_t count = 0;
    while (inherited[count]) count++;
    char **all = pages((own.count + count + 1) * sizeof *all, -1), **end = collect(own, all), **ownEnd = end;
    for (; *inherited; inherited++) {
        char **at = all;
        while (at < ownEnd && !sameName(*at, *inherited)) at++;
        if (at == ownEnd) *end++ = *inherited;
    }
    return all;
}

/// Without a terminal on the host's side the line carries bytes as they are, apart from two in the input:
/// 0x04 ends a piece (or everything), 0x16 takes the byte behind it literally.
static void setLine(long tty, int terminal, const char *size) {
    struct termios line;
    if (call3(__NR_ioctl, tty, TCGETS, (long)&line) < 0) return;
    if (!terminal) {
        line.c_iflag = IGNBRK;
        line.c_oflag = 0;
        line.c_lflag = ICANON | IEXTEN;
        memset(line.c_cc, 0, sizeof line.c_cc);
        line.c_cc[VEOF] = 0x04;
        line.c_cc[VLNEXT] = 0x16;
        line.c_cc[VMIN] = 1;
    } else {
        struct window_size window = {0};
        uint32_t rows, columns;
        if (number(&size, &rows) && *size++ == ' ' && number(&size, &columns) && rows <= 0xFFFF
            && columns <= 0xFFFF) {
            window.rows = (unsigned short)rows;
            window.columns = (unsigned short)columns;
            call3(__NR_ioctl, tty, TIOCSWINSZ, (long)&window);
        }
        line.c_oflag |= OPOST | ONLCR;
        line.c_lflag |= ECHO | ECHOE | ECHOK | ISIG | ICANON | IEXTEN;
        line.c_iflag |= ICRNL;
    }
    // A reader that falls behind lowers RTS, and the host's side waits.
    line.c_cflag |= CRTSCTS;
    call3(__NR_ioctl, tty, TCSETSW, (long)&line);
    // From here on the line takes any bytes. Before, it would have echoed and edited them.
    if (!terminal) {
        out(doorbellPort, 32, inputReady);
        call3(__NR_iopl, 0, 0, 0);
    }
}
/// A session of its own with the line as controlling terminal, so that signals typed and job control work.
static void takeTerminal(const char *path, int terminal, const char *size) {
    call3(__NR_setsid, 0, 0, 0);
    long tty = call3(__NR_open, (long)path, O_RDWR, 0);
    if (tty < 0) fail("the console cannot be opened", 126);
    call3(__NR_ioctl, tty, TIOCSCTTY, 1);
    setLine(tty, terminal, size);
    for (int fd = 0; fd < 3; fd++)
        if (tty != fd) call3(__NR_dup2, tty, fd, 0);
    if (tty > 2) call3(__NR_close, tty, 0, 0);
}

/// execve; a file that is no program and has no #! line is a shell script, as in every shell.
static long execute(const char *path, char **arguments, char **variables) {
    long error = call3(__NR_execve, (long)path, (long)arguments, (long)variables);
    if (error != -ENOEXEC) return error;
    size_t count = 0;
    while (arguments[count]) count++;
    char **script = pages((count + 2) * sizeof *script, -1);
    script[0] = "sh";
    script[1] = (char *)path;
    for (size_t at = 1; at < count; at++) script[at + 1] = arguments[at];
    return call3(__NR_execve, (long)"/bin/sh", (long)script, (long)variables);
}
static long search(char **arguments, char **variables, const char *path) {
    static char full[pathBytes];
    size_t nameLength = length(arguments[0]);
    long result = -ENOENT;
    for (int last = !nameLength; !last;) {
        size_t count = 0;
        while (path[count] && path[count] != ':') count++;
        last = !path[count];
        if (count + nameLength + 2 <= sizeof full) {
            memcpy(full, path, count);
            size_t at = count;
            if (count) full[at++] = '/';
            memcpy(full + at, arguments[0], nameLength + 1);
            long error = execute(full, arguments, variables);
            if (error != -ENOENT && error != -ENOTDIR) result = error;
        }
        path += count + !last;
    }
    return result;
}
static void run(const char *path, const char *tty, char **inherited) {
    if (!path || !tty) fail("usage: run DIRECTORY TTY", 2);
    long directory = call3(__NR_open, (long)path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    struct words command = readWords(directory, "command");
    struct words terminal = readWords(directory, "terminal");
    if (!command.count) fail("there is no command", 127);
    char **arguments = pages((command.count + 1) * sizeof *arguments, -1);
    collect(command, arguments);
    char **variables = environment(readWords(directory, "environment"), inherited);
    const char *searchPath = "/bin:/sbin:/usr/bin:/usr/sbin";
    for (char **at = variables; *at; at++)
        if (sameName(*at, "PATH=")) searchPath = *at + 5;
    takeTerminal(tty, terminal.count > 0, terminal.count ? terminal.text : "");
    int slash = 0;
    for (const char *at = arguments[0]; *at; at++) slash |= *at == '/';
    long error = slash ? execute(arguments[0], arguments, variables) : search(arguments, variables, searchPath);
    say(arguments[0]);
    if (error == -ENOENT || error == -ENOTDIR) say(": not found\n"), quit(127);
    say(error == -E2BIG ? ": too many arguments\n" : ": cannot be executed\n");
    quit(126);
}

// ---- noise BYTES SEED ----
/// The generator SplitMix64, from a start that no two seeds share within 2^32 words.
static void noise(uint32_t bytes, uint32_t seed) {
    static uint64_t page[512];
    uint64_t state = (uint64_t)seed << 32;
    while (bytes > 0) {
        for (size_t at = 0; at < sizeof page / sizeof *page; at++) {
            uint64_t bits = ++state * 0x9E3779B97F4A7C15;
            bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9;
            bits = (bits ^ bits >> 27) * 0x94D049BB133111EB;
            page[at] = bits ^ bits >> 31;
        }
        long put = call3(__NR_write, 1, (long)page, bytes < sizeof page ? bytes : (long)sizeof page);
        if (put <= 0) fail("no room for all of the noise", 1);
        bytes -= (uint32_t)put;
    }
}

__attribute__((used)) static _Noreturn void start(long *stack) {
    long count = stack[0];
    char **arguments = (char **)(stack + 1), **variables = arguments + count + 1;
    const char *first = count > 2 ? arguments[2] : 0;
    const char *verb = count > 1 ? arguments[1] : "";
    if (equal(verb, "out") && count == 5) out(argument(first), argument(arguments[3]), argument(arguments[4]));
    else if (equal(verb, "exit")) exitGuest(argument(first));
    else if (equal(verb, "begin")) begin();
    else if (equal(verb, "power-button")) waitForPowerButton();
    else if (equal(verb, "modules")) loadModules(first);
    else if (equal(verb, "noise") && count == 4) noise(argument(first), argument(arguments[3]));
    else if (equal(verb, "run")) run(first, count > 3 ? arguments[3] : 0, variables);
    else
        fail("usage: begin | out PORT WIDTH VALUE | exit STATUS | power-button | modules DIRECTORY"
             " | noise BYTES SEED | run DIRECTORY TTY", 2);
    quit(0);
}
// The stack pointer at entry is the argument vector; the ABI wants it 16-byte aligned at the call.
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n\tud2\n");
