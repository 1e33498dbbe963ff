// For struct ucred and fallocate's flags.
#define _GNU_SOURCE 1
#include "CLinux.h"
#include <linux/falloc.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>

// include/uapi/asm-generic/socket.h of Linux 6.5
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif
// include/linux/socket.h of Linux 6.5
#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04
#endif
// include/uapi/linux/magic.h of Linux 6.9
#ifndef PID_FS_MAGIC
#define PID_FS_MAGIC 0x50494446
#endif

int mingle_packet_socket(void) {
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 ? -errno : fd;
}

static int address_of(const char *path, struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof address->sun_path) return -ENAMETOOLONG;
    memcpy(address->sun_path, path, length);
    return 0;
}

int mingle_packet_listen(int fd, const char *path, int backlog) {
    struct sockaddr_un address;
    int error = address_of(path, &address);
    if (error) return error;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) return -errno;
    return listen(fd, backlog) < 0 ? -errno : 0;
}

int mingle_packet_connect(int fd, const char *path) {
    struct sockaddr_un address;
    int error = address_of(path, &address);
    if (error) return error;
    return connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
}

int mingle_packet_accept(int fd) {
    int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return accepted < 0 ? -errno : accepted;
}

long mingle_packet_send(int fd, const void *bytes, size_t count, int passed) {
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = count};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (passed >= 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &passed, sizeof(int));
    }
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 ? -errno : sent;
}

/// One packet with what came along. `sender` may be NULL: then nothing but a descriptor is expected.
static long receive(int fd, void *bytes, size_t count, int *passed, struct mingle_sender *sender) {
    *passed = -1;
    struct iovec part = {.iov_base = bytes, .iov_len = count};
    // Room for one descriptor, where nothing else may come: the kernel opens no more than fit, and says so. Alignment of
    // cmsghdr lets a second one fit there, and more where the sender's identity is expected.
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int)) * 2 + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sender ? sizeof control.room : CMSG_SPACE(sizeof(int));
    ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0) return -errno;
    int odd = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET) continue;
        if (sender && header->cmsg_type == SCM_CREDENTIALS) {
            struct ucred credentials;
            memcpy(&credentials, CMSG_DATA(header), sizeof credentials);
            sender->process = credentials.pid;
            sender->user = credentials.uid;
            continue;
        }
        if (sender && header->cmsg_type == SCM_PIDFD) {
            memcpy(&sender->pidfd, CMSG_DATA(header), sizeof(int));
            continue;
        }
        if (header->cmsg_type != SCM_RIGHTS) continue;
        size_t descriptors = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t index = 0; index < descriptors; index++) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(header) + index * sizeof(int), sizeof(int));
            if (odd || *passed >= 0) {
                close(descriptor);
                odd = 1;
            } else {
                *passed = descriptor;
            }
        }
    }
    if (!odd) return got;
    if (*passed >= 0) close(*passed);
    *passed = -1;
    if (sender && sender->pidfd >= 0) close(sender->pidfd);
    if (sender) sender->pidfd = -1;
    return -EMSGSIZE;
}

long mingle_packet_receive(int fd, void *bytes, size_t count, int *passed) {
    return receive(fd, bytes, count, passed, NULL);
}

long mingle_packet_receive_from(int fd, void *bytes, size_t count, int *passed, struct mingle_sender *sender) {
    *sender = (struct mingle_sender){.process = 0, .user = (unsigned int)-1, .pidfd = -1};
    return receive(fd, bytes, count, passed, sender);
}

int mingle_packet_tell_sender(int fd, int on) {
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0) return -errno;
    // Before Linux 6.5 there is none.
    if (setsockopt(fd, SOL_SOCKET, SO_PASSPIDFD, &on, sizeof on) < 0 && errno != ENOPROTOOPT) return -errno;
    return 0;
}

int mingle_packet_pair(int *first, int *second) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) return -errno;
    *first = pair[0];
    *second = pair[1];
    return 0;
}

int mingle_packet_listen_again(int fd, int backlog) { return listen(fd, backlog) < 0 ? -errno : 0; }

uint64_t mingle_pidfd_inode(int pidfd) {
    struct statfs system;
    struct stat status;
    if (fstatfs(pidfd, &system) < 0 || system.f_type != PID_FS_MAGIC || fstat(pidfd, &status) < 0) return 0;
    return status.st_ino;
}

int mingle_peer_credentials(int fd, int *process, unsigned int *user) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) return -errno;
    *process = peer.pid;
    *user = peer.uid;
    return 0;
}

int mingle_peer_pidfd(int fd) {
    int pidfd = -1;
    socklen_t size = sizeof pidfd;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) < 0) return -errno;
    return pidfd;
}

int mingle_punch_hole(int fd, uint64_t offset, uint64_t length) {
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return fallocate(fd, mode, (off_t)offset, (off_t)length) < 0 ? -errno : 0;
}

int mingle_reserve(int fd, uint64_t length) {
    return fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)length) < 0 ? -errno : 0;
}

int mingle_random(void *bytes, size_t count) {
    size_t done = 0;
    while (done < count) {
        ssize_t got = getrandom((char *)bytes + done, count - done, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -errno;
        done += (size_t)got;
    }
    return 0;
}

int mingle_prctl(int option, unsigned long argument) { return prctl(option, argument, 0, 0, 0) < 0 ? -errno : 0; }
