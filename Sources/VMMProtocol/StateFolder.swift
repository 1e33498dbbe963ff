/// The folders of a state directory that several programs look into.
public enum StateFolder {
    /// The guests' records (``GuestRecord``).
    public static let guests = "guests"
    /// The guests' control sockets.
    public static let control = "control"
    /// What terminals were set to (``SavedTerminal``).
    public static let terminal = "terminal"
}
