/// How a kernel file is entered.
public enum BootProtocol: String, CaseIterable, Sendable {
    /// By what the file says: payload note, PVH note, other ELF, bzImage.
    case auto
    /// ELF with a PVH note, 32-bit entry.
    case pvh
    /// ELF by Linux's 64-bit protocol.
    case linux64
    /// bzImage by its 64-bit entry.
    case bzimage
    /// Static program in ring 3 (guests/README.md).
    case payload
}
