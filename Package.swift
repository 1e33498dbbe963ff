// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]
/// Tests drive the unsafe layer on purpose; everything else holds there too.
let tests: [SwiftSetting] = [
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
    name: "mingle",
    products: [
        .executable(name: "mingle", targets: ["mingle"]),
        .executable(name: "mingle-vmm", targets: ["mingle-vmm"]),
        .executable(name: "mingle-broker", targets: ["mingle-broker"]),
        .library(name: "Hypervisor", targets: ["Hypervisor", "GuestMemory", "ImageFormats", "LinuxHost"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0")
    ],
    targets: [
        .target(name: "CLinux", cSettings: [.treatAllWarnings(as: .error)]),
        .systemLibrary(name: "CLZ4", providers: [.apt(["liblz4-dev"])]),
        .systemLibrary(name: "CZstd", providers: [.apt(["libzstd-dev"])]),
        .systemLibrary(name: "CLZMA", providers: [.apt(["liblzma-dev"])]),
        .systemLibrary(name: "CZlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CLibMD", providers: [.apt(["libmd-dev"])]),
        .target(name: "LinuxHost", dependencies: ["CLinux"], swiftSettings: strict),
        .target(name: "Confinement", dependencies: ["LinuxHost", "CLinux"], swiftSettings: strict),
        .target(name: "GuestMemory", dependencies: ["LinuxHost", "CLinux"], swiftSettings: strict),
        .target(name: "ImageFormats", swiftSettings: strict),
        .target(
            name: "Hypervisor",
            dependencies: ["ImageFormats", "GuestMemory", "LinuxHost", "CLinux"],
            swiftSettings: strict),
        .target(
            name: "Virtio", dependencies: ["Hypervisor", "GuestMemory", "LinuxHost"], swiftSettings: strict),
        .systemLibrary(name: "CBlake2", providers: [.apt(["libb2-dev"])]),
        .systemLibrary(name: "CXXHash", providers: [.apt(["libxxhash-dev"])]),
        .target(
            name: "FrameStore", dependencies: ["LinuxHost", "CLinux", "CXXHash"], swiftSettings: strict),
        .target(name: "FrameIndex", dependencies: ["FrameStore"], swiftSettings: strict),
        .target(
            name: "FrameBroker",
            dependencies: ["FrameIndex", "FrameStore", "VMMProtocol", "LinuxHost", "CLinux"],
            swiftSettings: strict),
        .target(
            name: "BrokerClient", dependencies: ["FrameStore", "LinuxHost", "CLinux"], swiftSettings: strict),
        .target(
            name: "Sharing", dependencies: ["FrameStore", "GuestMemory", "LinuxHost", "CLinux"],
            swiftSettings: strict),
        .target(
            name: "GuestImages",
            dependencies: ["ImageFormats", "LinuxHost", "CLZ4", "CZstd", "CLZMA", "CZlib", "CLibMD"],
            swiftSettings: strict),
        .target(
            name: "VMMProtocol", dependencies: ["ImageFormats", "GuestMemory"], swiftSettings: strict),
        .executableTarget(
            name: "mingle-vmm",
            dependencies: [
                "VMMProtocol", "Hypervisor", "Virtio", "ImageFormats", "Sharing", "FrameStore",
                "BrokerClient", "GuestMemory",
                "LinuxHost", "Confinement", "CLinux", "CBlake2",
            ],
            swiftSettings: strict),
        .target(
            name: "MingleSupport",
            dependencies: [
                "VMMProtocol", "ImageFormats", "CLinux", "FrameStore", "BrokerClient", "GuestMemory",
                "LinuxHost", "Confinement",
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "mingle-broker", dependencies: ["FrameBroker", "LinuxHost"], swiftSettings: strict),
        .executableTarget(
            name: "mingle",
            dependencies: [
                "VMMProtocol", "MingleSupport", "Hypervisor", "ImageFormats", "GuestImages", "GuestMemory",
                "LinuxHost",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "mingle-bench",
            dependencies: [
                "MingleSupport", "VMMProtocol", "Sharing", "FrameStore", "LinuxHost", "CLinux",
            ],
            path: "Benchmarks",
            swiftSettings: tests),
        .target(
            name: "TestSupport", dependencies: ["LinuxHost"], path: "Tests/TestSupport",
            swiftSettings: tests),
        // The store in one process, frames in an array, and a model of the kernel: for tests and measurements.
        .target(
            name: "SharingTestKit",
            dependencies: ["Sharing", "FrameIndex", "FrameStore", "GuestMemory", "LinuxHost", "TestSupport"],
            path: "Tests/SharingTestKit", swiftSettings: tests),
        .testTarget(
            name: "LinuxHostTests", dependencies: ["LinuxHost", "TestSupport"], swiftSettings: tests),
        // Tries one system call in a confined thread: tests look at how it ends.
        .executableTarget(
            name: "confinement-test-client", dependencies: ["Confinement", "LinuxHost", "CLinux"],
            path: "Tests/ConfinementTestClient", swiftSettings: tests),
        .testTarget(
            name: "ConfinementTests",
            dependencies: ["Confinement", "LinuxHost", "CLinux", "TestSupport", "confinement-test-client"],
            swiftSettings: tests),
        .testTarget(
            name: "GuestMemoryTests", dependencies: ["GuestMemory", "LinuxHost", "TestSupport"],
            swiftSettings: tests),
        .testTarget(
            name: "HypervisorTests",
            dependencies: ["Hypervisor", "GuestMemory", "LinuxHost", "CLinux", "TestSupport"],
            swiftSettings: tests),
        .testTarget(
            name: "VirtioTests",
            dependencies: ["Virtio", "Hypervisor", "GuestMemory", "LinuxHost", "TestSupport"],
            swiftSettings: tests),
        .testTarget(
            name: "SharingTests",
            dependencies: [
                "Sharing", "FrameIndex", "FrameStore", "GuestMemory", "LinuxHost", "CLinux", "SharingTestKit",
                "TestSupport",
            ],
            swiftSettings: tests),
        // A broker's client as a process of its own: tests kill it, and it measures.
        .executableTarget(
            name: "broker-test-client",
            dependencies: ["FrameBroker", "BrokerClient", "FrameIndex", "FrameStore", "LinuxHost"],
            path: "Tests/BrokerTestClient", swiftSettings: tests),
        .testTarget(
            name: "GuestImagesTests",
            dependencies: [
                "ImageFormats", "GuestImages", "Hypervisor", "MingleSupport", "GuestMemory", "LinuxHost",
                "TestSupport",
                "CLZ4", "CZstd", "CLZMA", "CZlib",
            ],
            swiftSettings: tests),
        .testTarget(
            name: "VMMProtocolTests",
            dependencies: [
                "VMMProtocol", "MingleSupport", "ImageFormats", "GuestMemory", "CLinux", "TestSupport",
            ],
            swiftSettings: tests),
        .testTarget(
            name: "MingleSupportTests",
            dependencies: [
                "VMMProtocol",
                "MingleSupport", "Confinement", "FrameStore", "BrokerClient", "GuestMemory", "LinuxHost",
                "mingle",
                "mingle-broker",
                "TestSupport",
            ],
            swiftSettings: tests),
        .testTarget(
            name: "FrameBrokerTests",
            dependencies: [
                "FrameBroker", "BrokerClient", "FrameIndex", "FrameStore", "LinuxHost", "CLinux",
                "SharingTestKit", "TestSupport",
                "mingle-broker",
                "broker-test-client",
            ],
            swiftSettings: tests),
        .testTarget(
            name: "IntegrationTests",
            dependencies: [
                "VMMProtocol",
                "mingle", "mingle-vmm", "mingle-broker", "MingleSupport", "Hypervisor", "Sharing",
                "Virtio", "FrameStore", "BrokerClient",
                "GuestMemory", "LinuxHost", "Confinement",
                "CLinux", "TestSupport",
            ],
            swiftSettings: tests),
        .testTarget(
            name: "LinuxTests",
            dependencies: [
                "VMMProtocol", "MingleSupport", "Hypervisor", "LinuxHost", "mingle", "mingle-vmm",
                "TestSupport",
            ],
            swiftSettings: tests),
    ],
    swiftLanguageModes: [.v6]
)
