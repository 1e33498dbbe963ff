// For sched_setaffinity, pipe2 and posix_spawn_file_actions_addchdir_np.
#define _GNU_SOURCE 1
#include "CLinux.h"
#include <sys/vfs.h>

int mingle_normal_scheduling(void) {
    struct sched_param none;
    memset(&none, 0, sizeof none);
    int result = sched_setscheduler(0, SCHED_OTHER, &none) < 0 ? -errno : 0;
    if (setpriority(PRIO_PROCESS, 0, 0) < 0 && result == 0) result = -errno;
    return result;
}

int mingle_normal_io_priority(void) {
    // IOPRIO_WHO_PROCESS, IOPRIO_CLASS_NONE: as the nice value says (linux/ioprio.h).
    return syscall(SYS_ioprio_set, 1, 0, 0) < 0 ? -errno : 0;
}

int mingle_use_all_processors(void) {
    // The kernel takes those that exist and are allowed.
    unsigned char mask[1024];
    memset(mask, 0xff, sizeof mask);
    return syscall(SYS_sched_setaffinity, 0, sizeof mask, mask) < 0 ? -errno : 0;
}

int mingle_default_memory_policy(void) {
    // MPOL_DEFAULT (linux/mempolicy.h)
    return syscall(SYS_set_mempolicy, 0, NULL, 0) < 0 ? -errno : 0;
}

int mingle_close_from(int first) {
    // SYS_close_range, for headers older than it.
    return syscall(436, first, ~0U, 0) < 0 ? -errno : 0;
}

int mingle_spawn_directory(posix_spawn_file_actions_t *actions, const char *path) {
    return posix_spawn_file_actions_addchdir_np(actions, path);
}

int mingle_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0; }

long mingle_filesystem_type(const char *path) {
    struct statfs status;
    return statfs(path, &status) < 0 ? -errno : (long)status.f_type;
}
