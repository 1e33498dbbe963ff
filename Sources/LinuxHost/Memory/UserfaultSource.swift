internal import CLinux
internal import Glibc

/// How a process gets a userfaultfd (userfaultfd(2), Linux's Documentation/admin-guide/mm/userfaultfd.rst).
///
/// KVM's accesses are faults of the kernel, so the plain system call is of use only with privilege (CAP_SYS_PTRACE)
/// or with `vm.unprivileged_userfaultfd`; since Linux 6.1 the device gives it to whom its file mode allows.
package enum UserfaultSource: CaseIterable, Sendable {
    case systemCall, device

    package static let devicePath = "/dev/userfaultfd"

    /// A userfaultfd that can keep every writer of shared memory out, KVM included.
    /// - Throws: "open" of the device; "userfaultfd", when this process may not have one for faults of the
    ///   kernel; "UFFDIO_API" with EINVAL, when the kernel cannot protect shared memory (Linux 5.19 can).
    package func protecting() throws(LinuxError) -> OwnedDescriptor {
        let made = try make()
        let features = UInt64(UFFD_FEATURE_PAGEFAULT_FLAG_WP) | UInt64(UFFD_FEATURE_WP_HUGETLBFS_SHMEM)
        try Self.agree(made, features)
        return made
    }

    private func make() throws(LinuxError) -> OwnedDescriptor {
        let flags = O_CLOEXEC | O_NONBLOCK
        switch self {
        case .systemCall:
            return OwnedDescriptor(adopting: try checked(mingle_userfaultfd(flags), "userfaultfd"))
        case .device:
            let device = try OwnedDescriptor.open(Self.devicePath, flags: O_RDWR)
            let made = mingle_ioctl(device.number, MINGLE_USERFAULTFD_IOC_NEW, UInt(flags))
            return OwnedDescriptor(adopting: try checked(made, "userfaultfd", Self.devicePath))
        }
    }

    /// A userfaultfd that fills missing pages and is for everybody: it knows of faults of user mode alone.
    package static func filling() throws(LinuxError) -> OwnedDescriptor {
        let flags = O_CLOEXEC | O_NONBLOCK | Int32(UFFD_USER_MODE_ONLY)
        let made = OwnedDescriptor(adopting: try checked(mingle_userfaultfd(flags), "userfaultfd"))
        try agree(made, 0)
        return made
    }

    /// Says what is wanted of it, once.
    private static func agree(_ made: borrowing OwnedDescriptor, _ features: UInt64) throws(LinuxError) {
        var request = uffdio_api()
        request.api = UInt64(UFFD_API)
        request.features = features
        // SAFETY: a live local of the type that the request takes.
        try checked(unsafe mingle_ioctl_pointer(made.number, MINGLE_UFFDIO_API, &request), "UFFDIO_API")
    }
}
